package config

import (
	"errors"
	"fmt"

	"github.com/knadh/koanf/v2"

	"github.com/bannou-mesh/bannou/services/guard"
)

// accessKey holds the rules about who may call what in the file: a map, which no flag can express.
const accessKey = "mesh.access"

// MeshAccess reads the rules of the YAML file about who may call what; none when no file is named.
func (f File) MeshAccess() (map[string][]string, error) {
	if f == "" {
		return nil, nil
	}
	values, err := read(string(f))
	if err != nil {
		return nil, err
	}
	if values.Exists(accessKey) && values.Get(accessKey) == nil {
		return nil, fmt.Errorf("%s: %s is empty: say who may call what, or leave it out for everyone", f, accessKey)
	}
	rules := map[string][]string{}
	err = values.UnmarshalWithConf(accessKey, &rules, koanf.UnmarshalConf{DecoderConfig: strict(&rules)})
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %s", f, accessKey, oneLine(err))
	}
	return rules, nil
}

// Guarded reports whether the node asks its callers who they are.
func (c *Config) Guarded() bool {
	return c.Mesh.Token != "" || c.Mesh.TokenFile != "" || c.Mesh.TLSCertFile != ""
}

// Open reports whether whoever reaches the node beyond loopback may use it, which the operator has accepted.
func (c *Config) Open() bool { return c.Insecure && !c.Guarded() && !onLoopback(c.Listen) }

// checkSecurity refuses what would leave a node more open, or more closed, than it seems.
func (c *Config) checkSecurity() error {
	m := &c.Mesh
	switch {
	case m.Token != "" && m.TokenFile != "":
		return errors.New("--mesh-token and --mesh-token-file are both set: the token is in one place; remove one of them")
	case m.Token != "" && len(m.Token) < guard.MinTokenBytes:
		return fmt.Errorf("--mesh-token has %d bytes; make it of %d at least, such as by `openssl rand -base64 32`", len(m.Token), guard.MinTokenBytes)
	case (m.TLSCertFile == "") != (m.TLSKeyFile == "") || (m.TLSCertFile == "") != (m.TLSCAFile == ""):
		return errors.New("--mesh-tls-cert-file, --mesh-tls-key-file and --mesh-tls-ca-file go together: set all of them, or none")
	case len(m.Access) > 0 && !c.Guarded():
		return fmt.Errorf("%s says who may call what, and nothing shows who calls: set --mesh-token-file, or the three --mesh-tls files", accessKey)
	}
	return guard.CheckRules(m.Access)
}
