"""Any images and mask in, samples out."""
