"""Engines: what turns a job into a picture or a text, behind one small door (`base.Engine`)."""
