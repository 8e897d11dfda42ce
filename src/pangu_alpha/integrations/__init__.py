"""Other programs' ways into PanGu-alpha; each module is imported only by those who want it."""
