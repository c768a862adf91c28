"""Rendered talking heads, of which everything is known: who, how they move, how they are seen.

Identity, motion and scene are separate and seeded, so any identity can be shown in the motion and the scene
of any clip. Coordinates are decimetres, x to the right of the picture (the person's left), y up, z towards
the camera; the origin lies between the eyes of the face at rest.
"""
