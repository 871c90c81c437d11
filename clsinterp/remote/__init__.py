"""Running traces on an NDIF server: the weights stay there, code and pixels go up, what was asked for comes down."""
