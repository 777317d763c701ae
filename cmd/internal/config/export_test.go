package config

// Key is what a flag is called in the YAML file.
func Key(flag string) string { return key(flag) }
