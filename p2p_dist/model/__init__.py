"""The Pix2Pix networks and their losses."""
