"""Image and label files, datasets, one file each, augmentation, and the labels that the policy network learns from."""
