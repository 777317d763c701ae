package eventstore

import (
	"bytes"
	"context"
	"crypto/cipher"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Personal says which members of an event's data are about a person. They are encrypted with the subject's key, until Erase destroys that.
type Personal struct {
	// Members are JSON pointers (RFC 6901), as /name and /address/street are. One that the data has not, or that is null, is passed over.
	Members []jsontext.Pointer
	// Subject is whom they are about, 1 to 320 bytes. It is kept as it is, until the subject is erased. Default: the stream, as category/id.
	Subject string
}

// sealedPrefix begins the string that stands for an encrypted member. An event that has a key has no other such string.
const sealedPrefix = "$sealed:"

// bound ties what is encrypted to its place: of no other event, and of no other member, can it be read.
func bound(eventID string, at jsontext.Pointer) []byte { return []byte(eventID + " " + string(at)) }

// seal encrypts the personal members of what is to be appended.
func (k *keyring) seal(ctx context.Context, appends []Append) error {
	var keys map[string]usable // by subject
	for i := range appends {
		for j := range appends[i].Events {
			e := &appends[i].Events[j]
			if len(e.Personal.Members) == 0 {
				continue
			}
			key, ok := keys[e.Personal.Subject]
			if !ok {
				var err error
				if key, err = k.ofSubject(ctx, e.Personal.Subject); err != nil {
					return err
				}
				if keys == nil {
					keys = map[string]usable{}
				}
				keys[e.Personal.Subject] = key
			}
			if err := sealEvent(e, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func sealEvent(e *Event, key usable) error {
	data, err := replace(e.Data, e.Personal.Members, func(at jsontext.Pointer, value jsontext.Value) ([]byte, error) {
		switch {
		case slices.Contains(e.Personal.Members, at):
			if value.Kind() == 'n' {
				return nil, nil
			}
			sealed, err := encrypt(key.aead, value, bound(e.ID, at))
			if err != nil {
				return nil, err
			}
			return []byte(`"` + sealedPrefix + base64.RawURLEncoding.EncodeToString(sealed) + `"`), nil
		case isSealed(value):
			return nil, fmt.Errorf("%w: event %q: a text that begins with %s may not stand at %s, beside personal members", state.ErrInvalid, e.Type, sealedPrefix, at)
		default:
			return nil, nil
		}
	})
	if err != nil {
		return err
	}
	e.Data, e.Metadata.Key, e.Personal = data, key.id, Personal{}
	return nil
}

// open decrypts the personal members of events, and makes null of those whose key is gone.
func (k *keyring) open(ctx context.Context, from keySource, events []Recorded) error {
	var ids map[string]bool
	for i := range events {
		if key := events[i].Metadata.Key; key != "" {
			if ids == nil {
				ids = map[string]bool{}
			}
			ids[key] = true
		}
	}
	if ids == nil {
		return nil
	}
	keys, err := k.find(ctx, from, ids)
	if err != nil {
		return err
	}
	for i := range events {
		if e := &events[i]; e.Metadata.Key != "" {
			if err := e.open(keys[e.Metadata.Key]); err != nil {
				return e.error(err)
			}
		}
	}
	return nil
}

// open decrypts with a key; nil: it is gone.
func (e *Recorded) open(key cipher.AEAD) error {
	data, err := replace(e.Data, nil, func(at jsontext.Pointer, value jsontext.Value) ([]byte, error) {
		if !isSealed(value) {
			return nil, nil
		}
		if key == nil {
			e.Erased = append(e.Erased, at)
			return []byte("null"), nil
		}
		sealed, err := base64.RawURLEncoding.DecodeString(strings.TrimSuffix(string(value[1+len(sealedPrefix):]), `"`))
		if err != nil {
			return nil, fmt.Errorf("%w: member %s is no base64", state.ErrCorrupt, at)
		}
		text, err := decrypt(key, sealed, bound(e.ID, at))
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", at, err)
		}
		return text, nil
	})
	if err != nil {
		return err
	}
	if key != nil {
		e.openedWith = e.Metadata.Key
	}
	e.Data, e.Metadata.Key = data, ""
	return nil
}

func isSealed(value jsontext.Value) bool {
	return value.Kind() == '"' && bytes.HasPrefix(value[1:], []byte(sealedPrefix))
}
