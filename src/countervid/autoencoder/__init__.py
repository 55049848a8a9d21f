"""Diffusion Video Autoencoder: a clip as an identity, poses and noise maps, edited by moving the identity once."""
