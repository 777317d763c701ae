package state

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/metric"
)

// Limits that hold on every engine, so that a store can move from one to another.
const (
	MaxKeyBytes   = 255
	MaxValueBytes = 4 << 20 // of JSON
	MaxBulkKeys   = 1000
	MaxPageSize   = 1000
	MaxIndexes    = 16 // of one store
)

// A StoreConfig describes one store.
type StoreConfig struct {
	// Name is how programs ask for the store: lower-case letters, digits and dashes, 1 to 64 of them, the first a letter.
	Name string

	// Backend is the driver that keeps it: "memory", "sqlite", "redis" or "mysql".
	Backend string

	// KeyPrefix sets the store's keys apart on Redis, as "{prefix}:{key}". One that ends in "||" is Dapr's, and has no
	// colon after it: with "shop||" the store's keys are those of the app shop in Dapr's Redis store. On MySQL the rows are then
	// Dapr's too, in its own table, which has no Indexes; elsewhere on SQL a prefix means nothing. Default: Name.
	KeyPrefix string

	// DefaultTTL is the expiry of saves that do not ask for another. Zero: such saves keep the expiry the key has, and
	// new keys never expire.
	DefaultTTL time.Duration

	// TableName is the table on SQL engines. Several stores may share one. Default: "state_entries". Of a store in Dapr's rows on
	// MySQL it may be "database.table", and is "dapr_state_store.state" by default, as with Dapr.
	TableName string

	// Indexes are the dotted paths of members that queries look for, at most MaxIndexes. SQL engines index them: after the
	// store is opened, in the background, while it is in use. A query is right with them and without.
	Indexes []string

	// PublishChanges makes the factory tell of every change of this store: by Options.Announce where the engine can, and by
	// Options.OnChange otherwise.
	PublishChanges bool

	// Counterpart says that the store is only what another is compared with: its driver's Ready does not ask for it.
	Counterpart bool
}

// Options are the parts of a Factory that all its stores share. The zero value is usable.
type Options struct {
	// Logger receives slow operations. Default: none.
	Logger *slog.Logger

	// MeterProvider receives the metrics bannou.state.operations, bannou.state.errors and bannou.state.duration.
	// Default: none.
	MeterProvider metric.MeterProvider

	// OnChange is called after each change of a store that has PublishChanges, by the goroutine that made the change
	// and before its call returns. It must be safe for concurrent use. A process that dies in between has told nobody.
	// Where Announce applies, it takes the place of OnChange.
	OnChange func(ctx context.Context, c Changed)

	// Announce puts an entry into an outbox for each change of a store that has PublishChanges, in the transaction that
	// makes the change, where the store's driver can (Announcer). Default: none.
	Announce *Announce

	// SlowOperation is the duration from which an operation is logged as slow. Default: one second. Negative: never.
	SlowOperation time.Duration
}

// The values of Changed.Operation.
const (
	OperationSave   = "save"
	OperationDelete = "delete"
)

// Changed tells of one change that was made.
type Changed struct {
	Store     string
	Key       string
	Operation string // OperationSave or OperationDelete
	ETag      string // of the value saved; empty for a delete
}

// DaprTable is the table that Dapr's component for MySQL uses where it is told no other, and a store with its rows as well.
const DaprTable = "dapr_state_store.state"

// withDefaults fills in what was left empty and checks the rest.
func (c StoreConfig) withDefaults() (StoreConfig, error) {
	if c.KeyPrefix == "" {
		c.KeyPrefix = c.Name
	}
	daprs := c.InDaprsTable()
	switch {
	case c.TableName == "" && daprs:
		c.TableName = DaprTable
	case c.TableName == "":
		c.TableName = "state_entries"
	}
	switch {
	case !validStoreName(c.Name):
		return c, fmt.Errorf("%w: store name %q: use 1 to 64 lower-case letters, digits and dashes, the first a letter", ErrInvalid, c.Name)
	case len(c.KeyPrefix) > MaxKeyBytes || !utf8.ValidString(c.KeyPrefix) || strings.ContainsRune(c.KeyPrefix, 0):
		return c, fmt.Errorf("%w: store %q: the key prefix must be at most %d bytes of UTF-8 without NUL", ErrInvalid, c.Name, MaxKeyBytes)
	case daprs && !validForeignTable(c.TableName):
		return c, fmt.Errorf("%w: store %q: table name %q: Dapr's is letters, digits and underscores, with that of its database and a dot before it", ErrInvalid, c.Name, c.TableName)
	case daprs && len(c.Indexes) > 0:
		return c, fmt.Errorf("%w: store %q: the table is Dapr's, and gets no indexes: leave them out", ErrInvalid, c.Name)
	case !daprs && !validTableName(c.TableName):
		return c, fmt.Errorf("%w: store %q: table name %q: use 1 to 48 lower-case letters, digits and underscores, the first a letter", ErrInvalid, c.Name, c.TableName)
	case c.TableName == "outbox" || c.TableName == "outbox_turn":
		return c, fmt.Errorf("%w: store %q: the table %q is the outbox's; choose another name", ErrInvalid, c.Name, c.TableName)
	case c.DefaultTTL < 0:
		return c, fmt.Errorf("%w: store %q: the default TTL is negative", ErrInvalid, c.Name)
	}
	if err := checkIndexes(c.Indexes); err != nil {
		return c, fmt.Errorf("store %q: %w", c.Name, err)
	}
	if _, err := Expiry(0).resolve(c.DefaultTTL); err != nil {
		return c, fmt.Errorf("store %q: default TTL: %w", c.Name, err)
	}
	return c, nil
}

func checkIndexes(paths []string) error {
	if len(paths) > MaxIndexes {
		return fmt.Errorf("%w: %d indexes, at most %d are allowed", ErrInvalid, len(paths), MaxIndexes)
	}
	for i, path := range paths {
		if _, err := ParsePath(path); err != nil {
			return fmt.Errorf("index %q: %w", path, err)
		}
		if slices.Contains(paths[:i], path) {
			return fmt.Errorf("%w: the index %q is named twice", ErrInvalid, path)
		}
	}
	return nil
}

func validStoreName(s string) bool { return validName(s, 64, '-') }

// InDaprsTable reports whether the rows of the store are those of Dapr's state.mysql: its backend is mysql, and its key prefix Dapr's.
func (c StoreConfig) InDaprsTable() bool {
	return c.Backend == "mysql" && strings.HasSuffix(c.KeyPrefix, "||")
}

// validForeignTable accepts what Dapr accepts for the names of a database and a table, the former left out where it is the connection's.
func validForeignTable(s string) bool {
	database, table, qualified := strings.Cut(s, ".")
	if !qualified {
		table = database
	}
	word := func(s string) bool {
		return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
	}
	return word(table) && word(database)
}

func validTableName(s string) bool { return validName(s, 48, '_') }

func validName(s string, most int, also byte) bool {
	if s == "" || len(s) > most || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != also {
			return false
		}
	}
	return true
}

// checkPrefixes refuses two stores of one backend whose keys could meet: "a" with key "b:c" is "a:b" with key "c".
func checkPrefixes(stores []StoreConfig) error {
	for i, a := range stores {
		for _, b := range stores[i+1:] {
			if a.Backend != b.Backend {
				continue
			}
			p, q := a.KeyPrefix+":", b.KeyPrefix+":"
			if strings.HasPrefix(p, q) || strings.HasPrefix(q, p) {
				return fmt.Errorf("%w: stores %q and %q: the key prefixes %q and %q overlap; give one of them another prefix",
					ErrInvalid, a.Name, b.Name, a.KeyPrefix, b.KeyPrefix)
			}
		}
	}
	return nil
}
