"""LC-Net: networks that decide for every input which layers and channels to skip, and save their time."""
