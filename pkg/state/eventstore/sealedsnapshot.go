package eventstore

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// subjects are those whose personal members a state may hold. A snapshot of it is encrypted with the key of the one, and so erased with it.
type subjects struct {
	keys  []string // ids of the keys that events were encrypted with
	named []string // where the events are not known
}

// add adds the subject of a key; "" is none.
func (a *subjects) add(key string) {
	if key != "" && !slices.Contains(a.keys, key) {
		a.keys = append(a.keys, key)
	}
}

// snapshotPrefix begins a snapshot that is encrypted, and no JSON: the id of the key and base64 follow, with a colon between.
const snapshotPrefix = "sealed:"

// sealSnapshot returns the data as it is to be kept. Nil: it holds something about several subjects, and must not be.
func (k *keyring) sealSnapshot(ctx context.Context, stream StreamID, eventID string, data []byte, about subjects) ([]byte, error) {
	keys := map[string]bool{}
	for _, id := range about.keys {
		keys[id] = true
	}
	for _, subject := range about.named {
		key, err := k.ofSubject(ctx, subject)
		if err != nil {
			return nil, err
		}
		keys[key.id] = true
	}
	switch len(keys) {
	case 0:
		return data, nil
	case 1:
	default:
		return nil, nil
	}
	found, err := k.find(ctx, k.keys, keys)
	if err != nil {
		return nil, err
	}
	for id, aead := range found {
		sealed, err := encrypt(aead, data, boundSnapshot(stream, eventID))
		if err != nil {
			return nil, err
		}
		return []byte(snapshotPrefix + id + ":" + base64.RawURLEncoding.EncodeToString(sealed)), nil
	}
	return nil, nil // erased meanwhile
}

// openSnapshot returns the data as it was, and the id of the key. Nil: the key is gone.
func (k *keyring) openSnapshot(ctx context.Context, s Snapshot) (data []byte, key string, err error) {
	rest, sealed := bytes.CutPrefix(s.Data, []byte(snapshotPrefix))
	if !sealed {
		return s.Data, "", nil
	}
	id, text, _ := bytes.Cut(rest, []byte(":"))
	found, err := k.find(ctx, k.keys, map[string]bool{string(id): true})
	if err != nil {
		return nil, "", err
	}
	aead := found[string(id)]
	if aead == nil {
		return nil, "", nil
	}
	raw, err := base64.RawURLEncoding.AppendDecode(nil, text)
	if err == nil {
		data, err = decrypt(aead, raw, boundSnapshot(s.Stream, s.EventID))
	}
	if err != nil {
		return nil, "", fmt.Errorf("eventstore: %w: the snapshot of %s: %w", state.ErrCorrupt, s.Stream, err)
	}
	return data, string(id), nil
}

func boundSnapshot(stream StreamID, eventID string) []byte {
	return []byte("snapshot " + stream.String() + " " + eventID)
}
