package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// KeyStore has one value, the keys that sign access tokens. It lasts. Who can read it can make tokens.
const KeyStore = "auth-keys"

const (
	ringKey     = "ring"
	reloadEvery = time.Minute // at most so long another node's new key is unknown here: it signs no earlier than that
	reloadLeast = time.Second // between two looks for a key that a token names and nobody knows
	leadMost    = 5 * time.Minute
)

// A signingKey is one key pair. It signs from an instant on, until the next one does.
type signingKey struct {
	ID        string    `json:"id"`
	Seed      []byte    `json:"seed"` // of the private key
	SignsFrom time.Time `json:"signsFrom"`
}

func newSigningKey(from time.Time) signingKey {
	k := signingKey{Seed: random(ed25519.SeedSize), SignsFrom: from}
	sum := sha256.Sum256(k.public())
	k.ID = base64.RawURLEncoding.EncodeToString(sum[:12])
	return k
}

func (k signingKey) private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k.Seed) }

func (k signingKey) public() ed25519.PublicKey {
	public, _ := k.private().Public().(ed25519.PublicKey)
	return public
}

// keys are in the order in which they sign.
type keys struct {
	Keys []signingKey `json:"keys"`
}

// turn adds the next key when it is time, and takes out those whose tokens have all expired. It reports whether it did anything.
func (k *keys) turn(now time.Time, rotation, tokens time.Duration) bool {
	before := len(k.Keys)
	for len(k.Keys) > 1 && now.Sub(k.Keys[1].SignsFrom) > tokens+2*leeway {
		k.Keys = k.Keys[1:]
	}
	changed := len(k.Keys) != before
	lead := min(leadMost, rotation/2)
	switch last := len(k.Keys) - 1; {
	case last < 0:
		k.Keys = append(k.Keys, newSigningKey(now))
	case now.Sub(k.Keys[last].SignsFrom) >= rotation-lead:
		k.Keys = append(k.Keys, newSigningKey(now.Add(lead)))
	default:
		return changed
	}
	return true
}

// signing is the key that signs now.
func (k *keys) signing(now time.Time) (signingKey, bool) {
	for _, key := range slices.Backward(k.Keys) {
		if !key.SignsFrom.After(now) {
			return key, true
		}
	}
	return signingKey{}, false
}

func (k *keys) find(id string) (signingKey, bool) {
	i := slices.IndexFunc(k.Keys, func(key signingKey) bool { return key.ID == id })
	if i < 0 {
		return signingKey{}, false
	}
	return k.Keys[i], true
}

// A ring is this process's copy of the keys, which all nodes share.
type ring struct {
	factory          *state.Factory
	now              func() time.Time
	rotation, tokens time.Duration

	mu     sync.Mutex
	held   keys
	looked time.Time
}

var errNoKeys = errors.New("the keys that sign tokens could not be read yet")

// load reads the keys, and turns them if it is time. Of several nodes that do, one wins.
func (r *ring) load(ctx context.Context) error {
	store, err := state.Open[keys](ctx, r.factory, KeyStore)
	if err != nil {
		return err
	}
	for {
		entry, err := store.GetWithETag(ctx, ringKey)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return fmt.Errorf("%w: %w", errNoKeys, err)
		}
		if entry.Value.turn(r.now(), r.rotation, r.tokens) {
			_, err = store.TrySaveWith(ctx, ringKey, entry.Value, entry.ETag, state.SaveOptions{Expiry: state.Never})
			if errors.Is(err, state.ErrConflict) {
				continue
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errNoKeys, err)
			}
		}
		r.mu.Lock()
		r.held, r.looked = entry.Value, r.now()
		r.mu.Unlock()
		return nil
	}
}

// all are the keys that are known, read when there are none yet.
func (r *ring) all(ctx context.Context) (keys, error) {
	r.mu.Lock()
	held := r.held
	r.mu.Unlock()
	if len(held.Keys) > 0 {
		return held, nil
	}
	if err := r.load(ctx); err != nil {
		return keys{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held, nil
}

// signing is the key that signs now.
func (r *ring) signing(ctx context.Context) (signingKey, error) {
	k, err := r.all(ctx)
	if err != nil {
		return signingKey{}, err
	}
	key, found := k.signing(r.now())
	if !found {
		return signingKey{}, errNoKeys
	}
	return key, nil
}

// verifying is the key of that id. One that is unknown may be another node's new one; it is looked for once a second at most, so
// that made-up ids cost nothing.
func (r *ring) verifying(ctx context.Context, id string) (signingKey, bool, error) {
	k, err := r.all(ctx)
	if err != nil {
		return signingKey{}, false, err
	}
	if key, found := k.find(id); found {
		return key, true, nil
	}
	r.mu.Lock()
	look := r.now().Sub(r.looked) >= reloadLeast
	if look {
		r.looked = r.now()
	}
	r.mu.Unlock()
	if !look {
		return signingKey{}, false, nil
	}
	if err := r.load(ctx); err != nil {
		return signingKey{}, false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key, found := r.held.find(id)
	return key, found, nil
}
