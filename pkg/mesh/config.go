package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A Config is one version of the mesh's configuration: the mappings, and settings that the mesh keeps for others.
type Config struct {
	Version          int64             `json:"version"`           // counts from 1; 0: never set
	Mappings         map[string]string `json:"mappings"`          // service to app-id
	DefaultAppID     string            `json:"defaultAppId"`      // empty when set: "bannou"
	Settings         jsontext.Value    `json:"settings,omitzero"` // a JSON object, kept to the digit; absent if not set
	SourceInstanceID string            `json:"sourceInstanceId,omitzero"`
	UpdatedAt        time.Time         `json:"updatedAt,omitzero"`
	RolledBackTo     int64             `json:"rolledBackTo,omitzero"` // the version whose content this is, if a rollback made it
}

// ServiceMappings returns the part of the configuration that routes calls.
func (c Config) ServiceMappings() Mappings {
	return Mappings{Services: c.Mappings, DefaultAppID: c.DefaultAppID, Version: c.Version, SourceInstanceID: c.SourceInstanceID}
}

// Mappings returns the mappings in force; version 0 if none were ever set.
func (r *Registry) Mappings(ctx context.Context) (Mappings, error) {
	c, err := r.CurrentConfig(ctx)
	return c.ServiceMappings(), err
}

// SetMappings replaces all mappings by the given ones, as the next version of the configuration, and announces them.
// None resets: every service is on "bannou" again. source is the instance that asks, for the record.
func (r *Registry) SetMappings(ctx context.Context, services map[string]string, source string) (Mappings, error) {
	c, err := r.announceConfig(ctx, func(_ Config, next *Config) error {
		next.Mappings, next.SourceInstanceID = services, source
		if len(services) == 0 {
			next.DefaultAppID = DefaultAppID
		}
		return nil
	})
	return c.ServiceMappings(), err
}

// ApplyMappings takes over mappings that another program announced, if their version is higher than the one in force;
// others are refused without an error. They are not announced again. A version over 2^53 is ErrInvalid.
func (r *Registry) ApplyMappings(ctx context.Context, m Mappings) (applied bool, err error) {
	if m.Version > maxAnnouncedVersion {
		return false, invalid("version", "must be %d at most, got %d", int64(maxAnnouncedVersion), m.Version)
	}
	_, err = r.changeConfig(ctx, func(current Config, next *Config) error {
		if m.Version <= current.Version {
			return errUnchanged
		}
		next.Version, next.SourceInstanceID = m.Version, m.SourceInstanceID
		next.Mappings, next.DefaultAppID = m.Services, m.DefaultAppID
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return false, nil
	}
	return err == nil, err
}

// CurrentConfig returns the configuration in force; version 0 if none was ever set.
func (r *Registry) CurrentConfig(ctx context.Context) (Config, error) {
	c, _, err := r.readConfig(ctx)
	return c, err
}

// SetConfig replaces the whole configuration if expectedVersion is the one in force, 0 meaning that none was ever set;
// ErrConflict otherwise. It returns the new one, with its version and time, and announces its mappings.
func (r *Registry) SetConfig(ctx context.Context, expectedVersion int64, c Config) (Config, error) {
	return r.announceConfig(ctx, func(current Config, next *Config) error {
		if err := current.isAt(expectedVersion); err != nil {
			return err
		}
		next.Mappings, next.DefaultAppID = c.Mappings, c.DefaultAppID
		next.Settings, next.SourceInstanceID = c.Settings, c.SourceInstanceID
		return nil
	})
}

// ConfigHistory returns the latest versions of the configuration, newest first, at most limit; 0 is 20, and more than
// 1000 is 1000. Every version is kept.
func (r *Registry) ConfigHistory(ctx context.Context, limit int) ([]Config, error) {
	if limit <= 0 {
		limit = 20
	}
	current, err := r.CurrentConfig(ctx)
	if err != nil || current.Version == 0 {
		return nil, err
	}
	var keys []string
	for v := current.Version - 1; v > 0 && len(keys) < min(limit, maxKeys)-1; v-- {
		keys = append(keys, historyKey(v))
	}
	values, err := getMany(ctx, r.table, keys)
	if err != nil {
		return nil, err
	}
	history := []Config{current}
	for i, value := range values {
		if value == nil {
			continue // numbers were skipped when mappings with a higher version were taken over
		}
		var c Config
		if err := json.Unmarshal(value, &c); err != nil {
			return nil, &corruptError{key: keys[i], err: err}
		}
		history = append(history, c)
	}
	return history, nil
}

// AnyVersion as an expected version is whichever is in force.
const AnyVersion = -1

// isAt reports as ErrConflict that another version is in force than the one expected.
func (c Config) isAt(expectedVersion int64) error {
	if expectedVersion == AnyVersion || expectedVersion == c.Version {
		return nil
	}
	return fmt.Errorf("%w: the configuration is at version %d, not %d; read it and try again", ErrConflict, c.Version, expectedVersion)
}

// RollbackConfig makes the content of an earlier version the configuration again, as a new version, and announces its
// mappings. It does so if expectedVersion is the one in force, or AnyVersion; ErrConflict otherwise. ErrNotFound: there is no
// such version.
func (r *Registry) RollbackConfig(ctx context.Context, version, expectedVersion int64, source string) (Config, error) {
	return r.announceConfig(ctx, func(current Config, next *Config) error {
		if err := current.isAt(expectedVersion); err != nil {
			return err
		}
		old := current
		if version != current.Version || version == 0 {
			var etag string
			var err error
			if old, etag, err = read[Config](ctx, r.table, historyKey(version)); err != nil {
				return err
			}
			if etag == "" {
				return fmt.Errorf("configuration version %d: %w; the latest is %d", version, ErrNotFound, current.Version)
			}
		}
		next.Mappings, next.DefaultAppID, next.Settings = old.Mappings, old.DefaultAppID, old.Settings
		next.RolledBackTo, next.SourceInstanceID = version, source
		return nil
	})
}

// errUnchanged is how a change says that there is nothing to change.
var errUnchanged = errors.New("unchanged")

func (r *Registry) readConfig(ctx context.Context) (Config, string, error) {
	c, etag, err := read[Config](ctx, r.table, keyConfigCurrent)
	c.DefaultAppID = cmp.Or(c.DefaultAppID, DefaultAppID)
	return c, etag, err
}

func (r *Registry) announceConfig(ctx context.Context, change func(current Config, next *Config) error) (Config, error) {
	c, err := r.changeConfig(ctx, change)
	if err == nil {
		r.announce(ctx, Change{Kind: ChangeMappings, Mappings: c.ServiceMappings()})
	}
	return c, err
}

// changeConfig replaces the configuration by what change makes of it, under compare-and-set; next comes to it as a copy
// of the current one with the next version. The version replaced is in the history before it is replaced, so none is
// ever missing there.
func (r *Registry) changeConfig(ctx context.Context, change func(current Config, next *Config) error) (Config, error) {
	var current, next Config
	var refused error
	err := retry(ctx, func() error {
		var etag string
		var err error
		if current, etag, err = r.readConfig(ctx); err != nil {
			return err
		}
		if etag == "" {
			// Whoever removed the record should not make versions count from the beginning.
			if current.Version, _, err = read[int64](ctx, r.table, keyConfigVersion); err != nil {
				return err
			}
		}
		next = current
		next.Version, next.RolledBackTo, next.UpdatedAt = current.Version+1, 0, r.now()
		if refused = change(current, &next); refused == nil {
			refused = next.complete()
		}
		if refused != nil {
			return nil //nolint:nilerr // not for retry: the caller is told below
		}
		if etag != "" {
			if err := r.archive(ctx, current); err != nil {
				return err
			}
		}
		return tryWrite(ctx, r.table, keyConfigCurrent, next, etag, 0)
	})
	if err = cmp.Or(err, refused); err != nil {
		return Config{}, err
	}
	r.follow(ctx, current, next)
	return next, nil
}

// complete fills in defaults, and reports what breaks a rule.
func (c *Config) complete() error {
	c.DefaultAppID = cmp.Or(c.DefaultAppID, DefaultAppID)
	c.Mappings = maps.Clone(c.Mappings)
	if c.Mappings == nil {
		c.Mappings = map[string]string{}
	}
	if err := c.ServiceMappings().Validate(); err != nil {
		return err
	}
	if len(c.Settings) > 0 && (!c.Settings.IsValid() || c.Settings.Kind() != '{') {
		return invalid("settings", "must be a JSON object")
	}
	return nil
}

// archive writes a version into the history, once: it never changes there.
func (r *Registry) archive(ctx context.Context, c Config) error {
	err := tryWrite(ctx, r.table, historyKey(c.Version), c, "", 0)
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// follow brings the records that depend on the configuration up to it. What fails is repaired by the next change or by
// Sweep, so it is logged, not returned: the change stands.
func (r *Registry) follow(ctx context.Context, old, next Config) {
	errs := []error{r.archive(ctx, next), r.writeVersion(ctx, next.Version), r.writeRouting(ctx, next)}
	for service := range old.Mappings {
		if _, still := next.Mappings[service]; !still {
			errs = append(errs, r.table.Delete(ctx, keyRoutingPrefix+service))
		}
	}
	if err := errors.Join(errs...); err != nil {
		r.log.Warn("the configuration is in force; records that follow it are not up to date yet",
			"version", next.Version, "error", err)
	}
}

// writeVersion raises config:version, never lowers it.
func (r *Registry) writeVersion(ctx context.Context, version int64) error {
	return retry(ctx, func() error {
		known, etag, err := read[int64](ctx, r.table, keyConfigVersion)
		if err != nil || known >= version {
			return err
		}
		return tryWrite(ctx, r.table, keyConfigVersion, version, etag, 0)
	})
}

func (r *Registry) writeRouting(ctx context.Context, c Config) error {
	var errs []error
	for service, app := range c.Mappings {
		value, err := json.Marshal(routing{ServiceName: service, AppID: app, Version: c.Version})
		if err == nil {
			err = r.table.Put(ctx, keyRoutingPrefix+service, value, routingTTL)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// refreshRouting keeps the service:routing records alive; once in a fifth of their life is enough.
func (r *Registry) refreshRouting(ctx context.Context) error {
	last, now := r.routed.Load(), time.Now().UnixNano()
	if now-last < int64(routingTTL/5) || !r.routed.CompareAndSwap(last, now) {
		return nil
	}
	c, err := r.CurrentConfig(ctx)
	if err == nil {
		err = r.writeRouting(ctx, c)
	}
	if err != nil {
		r.routed.Store(last)
	}
	return err
}
