package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/knadh/koanf/v2"
)

// mirrorsKey holds the mirrors of stores in the file.
const mirrorsKey = "state.mirrors"

// Mirrors reads the mirrors of the YAML file; none when no file is named.
func (f File) Mirrors() (map[string]Mirror, error) {
	if f == "" {
		return nil, nil
	}
	values, err := read(string(f))
	if err != nil {
		return nil, err
	}
	mirrors := map[string]Mirror{}
	err = values.UnmarshalWithConf(mirrorsKey, &mirrors, koanf.UnmarshalConf{DecoderConfig: strict(&mirrors)})
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %s", f, mirrorsKey, oneLine(err))
	}
	return mirrors, nil
}

// checkMirrors refuses mirrors that nothing could be compared with.
func (c *Config) checkMirrors() error {
	m := &c.Messaging
	switch {
	case (m.MirrorTo == "") != (len(m.MirrorTopics) == 0):
		return errors.New("--messaging-mirror-to and --messaging-mirror-topics go together: give both, or none")
	case m.MirrorTo != "" && !slices.Contains([]string{"rabbitmq", "redis", onDapr}, m.MirrorTo):
		return fmt.Errorf("--messaging-mirror-to is %q: choose rabbitmq, redis or dapr", m.MirrorTo)
	case m.MirrorTo != "" && m.MirrorTo == m.Backend:
		return fmt.Errorf("--messaging-mirror-to is %s, which is the node's broker: name the other one", m.MirrorTo)
	case m.MirrorTo == onDapr && m.Backend != "rabbitmq" && m.Backend != "redis":
		return fmt.Errorf("--messaging-mirror-to is dapr, whose topics are on RabbitMQ or Redis, and the node's broker is %s: set --messaging-backend", m.Backend)
	case m.MirrorTo == "rabbitmq" && len(m.RabbitMQURLs) == 0:
		return errors.New("--messaging-mirror-to is rabbitmq, and no address of it is set: give --messaging-rabbitmq-urls")
	case m.MirrorTo == "redis" && m.RedisURL == "" && len(m.RedisSentinelURLs) == 0:
		return errors.New("--messaging-mirror-to is redis, and no address of it is set: give --messaging-redis-url")
	}
	for _, name := range slices.Sorted(maps.Keys(c.State.Mirrors)) {
		m := c.State.Mirrors[name]
		key := mirrorsKey + "." + name
		switch {
		case m.To == "memory" || !slices.Contains(backends(), m.To):
			return fmt.Errorf("%s.to is %q: choose from %s", key, m.To, strings.Join(slices.DeleteFunc(backends(), func(b string) bool { return b == "memory" }), ", "))
		case m.Sample != nil && !(*m.Sample > 0 && *m.Sample <= 1): // NaN is neither
			return fmt.Errorf("%s.sample is %g: choose more than 0, for none leave the mirror out, and at most 1", key, *m.Sample)
		case m.To == onDapr && c.noDapr():
			return fmt.Errorf("%s.to is dapr and BANNOU_DAPR_ENABLED is false: they disagree, remove one of them", key)
		case m.To == onDapr:
			continue
		}
		if err := c.HasAddress(m.To); err != nil {
			return fmt.Errorf("%s.to is %s: %w", key, m.To, err)
		}
	}
	return nil
}
