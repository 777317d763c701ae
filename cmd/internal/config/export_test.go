package config

// Key is what a flag is called in the YAML file.
func Key(flag string) string { return key(flag) }

// ResolveBackends is the part of Resolve that chooses backends.
func (c *Config) ResolveBackends() error { return c.resolveBackends() }
