package auth

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Hashing says what a password costs to try. The defaults are those that OWASP's Password Storage Cheat Sheet gives for
// argon2id. A password that was hashed with others is hashed anew when its holder logs in.
type Hashing struct {
	// MemoryKiB is the memory of one hash. Default: 19456 (19 MiB).
	MemoryKiB uint32
	// Iterations is how often it is gone over. Default: 2.
	Iterations uint32
	// Parallelism is in how many lanes. Default: 1.
	Parallelism uint8
	// Concurrency is how many hashes are made at a time, and so bounds their memory: MemoryKiB times this. Default: 4.
	Concurrency int
	// Waiting is how many wait for their turn; who comes beyond is told that the node is overloaded. Default: 256.
	Waiting int
}

const (
	saltBytes = 16
	hashBytes = 32

	maxStoredMemoryKiB = 1 << 20 // of a hash that is read: more is nothing that this package wrote
)

var (
	errBusy      = errors.New("too many passwords are waiting to be hashed")
	errMalformed = errors.New("the stored hash of a password is malformed")
)

// A hasher makes and checks hashes, few at a time.
type hasher struct {
	cfg     Hashing
	places  chan struct{} // a token for each that may wait or work
	working chan struct{} // a token for each that may work
	made    func(ctx context.Context)
}

func newHasher(cfg Hashing, made func(ctx context.Context)) *hasher {
	if cfg.MemoryKiB == 0 {
		cfg.MemoryKiB = 19456
	}
	if cfg.Iterations == 0 {
		cfg.Iterations = 2
	}
	if cfg.Parallelism == 0 {
		cfg.Parallelism = 1
	}
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = 4
	}
	if cfg.Waiting <= 0 {
		cfg.Waiting = 256
	}
	return &hasher{cfg: cfg, places: make(chan struct{}, cfg.Concurrency+cfg.Waiting), working: make(chan struct{}, cfg.Concurrency), made: made}
}

// hash makes the hash of a password, in the form of the PHC: $argon2id$v=19$m=19456,t=2,p=1$salt$hash.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	p := h.fresh()
	key, err := h.work(ctx, password, p, hashBytes)
	if err != nil {
		return "", err
	}
	return p.encode(key), nil
}

// dummy is a hash that no password has, as costly to verify as one that was made. To make one of those would be most of a node's start.
func (h *hasher) dummy() string { return h.fresh().encode(random(hashBytes)) }

func (h *hasher) fresh() parameters {
	return parameters{memory: h.cfg.MemoryKiB, iterations: h.cfg.Iterations, lanes: h.cfg.Parallelism, salt: random(saltBytes)}
}

// verify reports whether it is the password of a hash, and whether the hash was made with other parameters than new ones are.
func (h *hasher) verify(ctx context.Context, password, encoded string) (right, old bool, err error) {
	p, want, err := decode(encoded)
	if err != nil {
		return false, false, err
	}
	key, err := h.work(ctx, password, p, uint32(len(want)))
	if err != nil {
		return false, false, err
	}
	old = p.memory != h.cfg.MemoryKiB || p.iterations != h.cfg.Iterations || p.lanes != h.cfg.Parallelism
	return subtle.ConstantTimeCompare(key, want) == 1, old, nil
}

func (h *hasher) work(ctx context.Context, password string, p parameters, length uint32) ([]byte, error) {
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	default:
		return nil, errBusy
	}
	select {
	case h.working <- struct{}{}:
		defer func() { <-h.working }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errBusy, context.Cause(ctx))
	}
	h.made(ctx)
	return argon2.IDKey([]byte(password), p.salt, p.iterations, p.memory, p.lanes, length), nil
}

// parameters are those of one hash.
type parameters struct {
	memory, iterations uint32
	lanes              uint8
	salt               []byte
}

func (p parameters) encode(key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.iterations, p.lanes,
		b64.EncodeToString(p.salt), b64.EncodeToString(key))
}

// decode reads what encode writes, and nothing that would cost more than this package ever asks for.
func decode(encoded string) (p parameters, key []byte, err error) {
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return parameters{}, nil, errMalformed
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.iterations, &p.lanes); n != 3 || err != nil {
		return parameters{}, nil, errMalformed
	}
	b64 := base64.RawStdEncoding.Strict()
	p.salt, err = b64.DecodeString(parts[4])
	if err == nil {
		key, err = b64.DecodeString(parts[5])
	}
	if err != nil || len(p.salt) < 8 || len(key) < 16 || len(key) > 64 || p.memory == 0 || p.memory > maxStoredMemoryKiB ||
		p.iterations == 0 || p.iterations > 64 || p.lanes == 0 || p.encode(key) != encoded {
		return parameters{}, nil, errMalformed
	}
	return p, key, nil
}
