package eventstore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// keyBytes is the length of every key: AES-256.
const keyBytes = 32

// A MasterKey wraps the keys of subjects, so that who has the database alone does not have them.
type MasterKey struct {
	id   string // tells it from others, and nothing of it
	aead cipher.AEAD
}

// ParseMasterKeys reads keys of 32 bytes in base64, one a line: the first wraps, the others are still read, while keys are being replaced. Empty
// lines count for nothing. Errors repeat nothing of the text.
func ParseMasterKeys(text string) ([]MasterKey, error) {
	var keys []MasterKey
	number := 0
	for line := range strings.Lines(text) {
		number++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		secret, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(secret) != keyBytes {
			return nil, fmt.Errorf("eventstore: %w: line %d is no master key: it has to be 32 bytes in base64, as `openssl rand -base64 32` makes them", state.ErrInvalid, number)
		}
		aead, err := newAEAD(secret)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(append([]byte("bannou master key "), secret...))
		keys = append(keys, MasterKey{id: hex.EncodeToString(sum[:8]), aead: aead})
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("eventstore: %w: there is no master key: write one of 32 bytes in base64, as `openssl rand -base64 32` makes them", state.ErrInvalid)
	}
	return keys, nil
}

// String is which key it is, and nothing of it.
func (m MasterKey) String() string { return "master key " + m.id }

// GoString is String.
func (m MasterKey) GoString() string { return m.String() }

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("eventstore: %w", err)
	}
	return cipher.NewGCM(block) //nolint:wrapcheck // it cannot fail with AES
}

// encrypt is AES-256-GCM with a random nonce, which stands before the rest (NIST SP 800-38D, 8.2.2): good for 2^32 texts under one key.
func encrypt(aead cipher.AEAD, text, bound []byte) ([]byte, error) {
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(text)+aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("eventstore: %w", err)
	}
	return aead.Seal(nonce, nonce, text, bound), nil
}

func decrypt(aead cipher.AEAD, sealed, bound []byte) ([]byte, error) {
	if len(sealed) < aead.NonceSize() {
		return nil, fmt.Errorf("%w: what is encrypted is cut short", state.ErrCorrupt)
	}
	text, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], bound)
	if err != nil {
		return nil, fmt.Errorf("%w: what is encrypted was changed, or is not of this place", state.ErrCorrupt)
	}
	return text, nil
}
