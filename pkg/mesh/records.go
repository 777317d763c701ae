package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// The keys: a contract, see the package comment.
const (
	keyApps           = "service:apps"
	keyConfigCurrent  = "config:current"
	keyConfigVersion  = "config:version"
	keyConfigHistory  = "config:history:"
	keyRoutingPrefix  = "service:routing:"
	keyRegistryPrefix = "service:registry:"
	keyHealthPrefix   = "service:heartbeat:"
	keyProbe          = "service:probe"
)

const (
	routingTTL = 5 * time.Minute
	// appsTTL is a little more than an instance's life: an app-id's time is not written with every heartbeat.
	appsTTL     = GoneAfter + HeartbeatInterval
	appsRefresh = HeartbeatInterval / 2
	// maxKeys is how many keys go into one GetMany: the state layer's limit.
	maxKeys = 1000
)

func registryKey(appID, instanceID string) string {
	return keyRegistryPrefix + appID + ":" + instanceID
}
func healthKey(appID string) string   { return keyHealthPrefix + appID }
func historyKey(version int64) string { return keyConfigHistory + strconv.FormatInt(version, 10) }

// appHealth is the record of one app-id: its health in one word, and its instances. It is the index by which
// instances are found, and it decides who is a member: an entry without a line here is not listed.
type appHealth struct {
	AppID     string           `json:"appId"`
	Status    Status           `json:"status"` // the best that an instance has
	UpdatedAt time.Time        `json:"updatedAt"`
	Instances []instanceHealth `json:"instances"`
}

type instanceHealth struct {
	InstanceID  string    `json:"instanceId"`
	Status      Status    `json:"status"` // as last announced
	LoadPercent float64   `json:"loadPercent"`
	LastSeen    time.Time `json:"lastSeen"`
	// Left marks an instance that deregistered, at LastSeen. The mark outlives it, so that a heartbeat it sent before,
	// and that is still on its way, does not bring it back.
	Left bool `json:"left,omitzero"`
	// Probes is what active probes found since the instance was registered at its address.
	Probes probes `json:"probes,omitzero"`
}

// probes are those of an instance that failed. A success forgets them.
type probes struct {
	Failed  int       `json:"failed"` // in a row
	Failing bool      `json:"failing"`
	Last    time.Time `json:"last"`
}

// failing reports whether the instance counts as degraded. Where nobody probes any more, it does not for ever.
func (p probes) failing(now time.Time) bool { return p.Failing && now.Sub(p.Last) < GoneAfter }

// status is that of an instance which says of itself, by its word or its silence, what own is.
func (i *instanceHealth) status(own Status, now time.Time) Status {
	if own == StatusHealthy && i.Probes.failing(now) {
		return StatusDegraded
	}
	return own
}

func (h *appHealth) find(instanceID string) *instanceHealth {
	i := slices.IndexFunc(h.Instances, func(i instanceHealth) bool { return i.InstanceID == instanceID })
	if i < 0 {
		return nil
	}
	return &h.Instances[i]
}

// set puts an instance's line in its place: sorted, so that every reader sees one order.
func (h *appHealth) set(line instanceHealth) {
	i, found := slices.BinarySearchFunc(h.Instances, line, func(a, b instanceHealth) int {
		return strings.Compare(a.InstanceID, b.InstanceID)
	})
	if found {
		h.Instances[i] = line
		return
	}
	h.Instances = slices.Insert(h.Instances, i, line)
}

// settle brings the summary up to date before the record is written.
func (h *appHealth) settle(appID string, now time.Time) {
	h.AppID, h.UpdatedAt, h.Status = appID, now, StatusUnavailable
	for _, i := range h.Instances {
		if status := i.status(i.Status, now); !i.Left && better(status, h.Status) {
			h.Status = status
		}
	}
}

func better(a, b Status) bool {
	order := []Status{StatusHealthy, StatusDegraded, StatusShuttingDown, StatusUnavailable}
	return slices.Index(order, a) < slices.Index(order, b)
}

// appList is the record of all app-ids, with the time at which each was last known to have an instance.
type appList struct {
	Apps map[string]time.Time `json:"apps"`
}

// routing is where a mapped service is, for programs that read one key.
type routing struct {
	ServiceName string `json:"serviceName"`
	AppID       string `json:"appId"`
	Version     int64  `json:"version"`
}

// read returns a record and its etag; an absent one is a zero record and an empty etag.
func read[T any](ctx context.Context, t Table, key string) (record T, etag string, err error) {
	value, etag, err := t.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return record, "", nil
	}
	if err != nil {
		return record, "", fmt.Errorf("read %s: %w", key, err)
	}
	if err := json.Unmarshal(value, &record); err != nil {
		var zero T
		return zero, etag, &corruptError{key: key, err: err}
	}
	return record, etag, nil
}

// tryWrite stores a record under compare-and-set.
func tryWrite(ctx context.Context, t Table, key string, record any, etag string, ttl time.Duration) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if err := t.TryPut(ctx, key, value, etag, ttl); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// A corruptError is a record that cannot be decoded. Records that expire are replaced by the next heartbeat; the
// configuration's is an error for its caller.
type corruptError struct {
	key string
	err error
}

func (e *corruptError) Error() string { return fmt.Sprintf("%s cannot be decoded: %v", e.key, e.err) }
func (e *corruptError) Unwrap() error { return e.err }

// retry calls try until it returns something else than ErrConflict. One writer of each round succeeds, so it ends;
// the growing random pause lets many writers of one key pass each other.
func retry(ctx context.Context, try func() error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 64*time.Millisecond) {
		err := try()
		if !errors.Is(err, ErrConflict) {
			return err
		}
		timer := time.NewTimer(rand.N(pause)) //nolint:gosec // spreads writers, guards nothing
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w, still in conflict with other writers: %w", context.Cause(ctx), err)
		case <-timer.C:
		}
	}
}

// getMany reads any number of keys, in order.
func getMany(ctx context.Context, t Table, keys []string) ([][]byte, error) {
	values := make([][]byte, 0, len(keys))
	for chunk := range slices.Chunk(keys, maxKeys) {
		got, err := t.GetMany(ctx, chunk)
		if err != nil {
			return nil, fmt.Errorf("read %d keys from %s on: %w", len(chunk), chunk[0], err)
		}
		if len(got) != len(chunk) {
			return nil, fmt.Errorf("read %d keys from %s on: the table returned %d", len(chunk), chunk[0], len(got))
		}
		values = append(values, got...)
	}
	return values, nil
}
