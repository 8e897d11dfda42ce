"""What MindSpore, MindFormers and the releases of 2021 and 2023 wrote."""
