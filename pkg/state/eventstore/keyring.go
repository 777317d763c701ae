package eventstore

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A keyring has the keys that were asked for of late. A key that was destroyed elsewhere is here until lives is over.
type keyring struct {
	keys    Keys
	masters []MasterKey
	lives   time.Duration // not positive: each is asked for each time

	mu      sync.Mutex
	known   map[string]knownKey // by id
	forgets int                 // counts calls of forget
}

// A knownKey is how a key was found. No aead: it is gone, for good.
type knownKey struct {
	subject string
	aead    cipher.AEAD
	until   time.Time
}

// A usable key, unwrapped.
type usable struct {
	id   string
	aead cipher.AEAD
}

const (
	defaultKeyLives = 10 * time.Second
	maxKnownKeys    = 10_000 // in memory; over it, all are asked for again
)

func newKeyring(keys Keys, cfg *Config) *keyring {
	k := &keyring{keys: keys, masters: cfg.MasterKeys, lives: cfg.KeyCache, known: map[string]knownKey{}}
	if k.lives == 0 {
		k.lives = defaultKeyLives
	}
	return k
}

// ofSubject returns the key of a subject, and makes one when there is none. The engine is asked each time: nothing is encrypted with a key that
// is known to be destroyed.
func (k *keyring) ofSubject(ctx context.Context, subject string) (usable, error) {
	fresh := make([]byte, keyBytes)
	if _, err := rand.Read(fresh); err != nil {
		return usable{}, fmt.Errorf("eventstore: %w", err)
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return usable{}, fmt.Errorf("eventstore: making the id of a key: %w", err)
	}
	made, err := k.wrap(SubjectKey{ID: id.String(), Subject: subject}, fresh)
	if err != nil {
		return usable{}, err
	}
	kept, err := k.keys.KeepKey(ctx, made)
	if err != nil {
		return usable{}, fmt.Errorf("eventstore: the key of a subject: %w", err)
	}
	aead, err := k.unwrap(kept)
	if err != nil {
		return usable{}, err
	}
	return usable{id: kept.ID, aead: aead}, nil
}

// find returns keys by their ids; those that are gone are not among them.
func (k *keyring) find(ctx context.Context, from keySource, ids map[string]bool) (map[string]cipher.AEAD, error) {
	found := make(map[string]cipher.AEAD, len(ids))
	var ask []string
	k.mu.Lock()
	now, forgets := time.Now(), k.forgets
	for id := range ids {
		if known, ok := k.known[id]; !ok || k.lives < 0 || now.After(known.until) {
			ask = append(ask, id)
		} else if known.aead != nil {
			found[id] = known.aead
		}
	}
	k.mu.Unlock()
	if len(ask) == 0 {
		return found, nil
	}
	until := time.Now().Add(k.lives) // from before they are read
	keys, err := from.SubjectKeys(ctx, ask)
	if err != nil {
		return nil, fmt.Errorf("eventstore: the keys of subjects: %w", err)
	}
	learned := make(map[string]knownKey, len(ask))
	for _, id := range ask {
		learned[id] = knownKey{until: until}
	}
	for _, key := range keys {
		aead, err := k.unwrap(key)
		if err != nil {
			return nil, err
		}
		found[key.ID], learned[key.ID] = aead, knownKey{subject: key.Subject, aead: aead, until: until}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.forgets != forgets { // what was read may be destroyed by now
		return found, nil
	}
	if len(k.known)+len(learned) > maxKnownKeys {
		clear(k.known)
	}
	for id, key := range learned {
		if known, ok := k.known[id]; !ok || known.aead != nil || known.until.Before(time.Now()) { // what is gone does not come back
			k.known[id] = key
		}
	}
	return found, nil
}

// forget drops the key of a subject from memory.
func (k *keyring) forget(subject string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgets++
	for id, known := range k.known {
		if known.subject == subject {
			delete(k.known, id)
		}
	}
}

// unknowing is a keyring that has no keys yet.
func (k *keyring) unknowing() *keyring {
	return &keyring{keys: k.keys, masters: k.masters, lives: -1, known: map[string]knownKey{}}
}

// renew has all keys asked for again.
func (k *keyring) renew() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgets++
	clear(k.known)
}

// wrap puts a key into the form that is kept.
func (k *keyring) wrap(key SubjectKey, secret []byte) (SubjectKey, error) {
	if len(k.masters) == 0 {
		key.Master, key.Wrapped = "", secret
		return key, nil
	}
	wrapped, err := encrypt(k.masters[0].aead, secret, []byte(key.ID))
	if err != nil {
		return SubjectKey{}, err
	}
	key.Master, key.Wrapped = k.masters[0].id, wrapped
	return key, nil
}

func (k *keyring) secret(key SubjectKey) ([]byte, error) {
	if key.Master == "" {
		return key.Wrapped, nil
	}
	for _, m := range k.masters {
		if m.id == key.Master {
			secret, err := decrypt(m.aead, key.Wrapped, []byte(key.ID))
			if err != nil {
				return nil, fmt.Errorf("eventstore: the key %s of a subject: %w", key.ID, err)
			}
			return secret, nil
		}
	}
	return nil, fmt.Errorf("eventstore: %w (%s): %w; give it that one", ErrNoMasterKey, key.Master, state.ErrUnavailable)
}

// ErrNoMasterKey reports keys of subjects that are wrapped with a master key that Config.MasterKeys has not. It comes with state.ErrUnavailable:
// subscriptions wait.
var ErrNoMasterKey = errors.New("keys of subjects are wrapped with a master key that this program was not given")

func (k *keyring) unwrap(key SubjectKey) (cipher.AEAD, error) {
	secret, err := k.secret(key)
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(secret)
	if err != nil {
		return nil, fmt.Errorf("%w: the key %s of a subject", state.ErrCorrupt, key.ID)
	}
	return aead, nil
}
