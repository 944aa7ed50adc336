"""Composition: the policy folder, the tick that decides, the publisher, and the process around them.

Two loops, one direction: *tick* observes, decides and saves; *publish* reads the store, renders and pushes.
The publisher never decides, the tick never touches a stream.
"""
