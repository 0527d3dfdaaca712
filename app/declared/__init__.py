"""What a client may declare of a trigger: read, checked, and shown back in the form that it may send.

``inputs`` are the shapes and the way to the stored definition and back, ``fields`` their types one by one;
``bodies`` parses whole bodies and lists every fault, ``checks`` looks at each field by itself, ``rules`` at
what must fit together. ``outcomes`` reads status lists, ``variables`` fills in what is written in braces,
``masking`` hides credentials.
"""
