"""Faces in images: detection, landmarks, alignment, pose, mesh, identity."""
