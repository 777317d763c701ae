package config

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Accounts configures the accounts service.
type Accounts struct {
	EraseAfter time.Duration `name:"erase-after" default:"720h" help:"How long after its end what the events of an account say about a person can still be read. 0: until it is erased by hand. It holds for accounts that are deleted from then on."`
}

// GameSession configures the game-session service, and the saga of those who join.
type GameSession struct {
	Expected bool `default:"true" negatable:"" help:"Whether the service game-session runs on some node. An account that is deleted leaves its game sessions, and its deletion waits for the service."`

	ConfirmWithin time.Duration `name:"confirm-within" default:"30s" help:"How long a player who was invited has for confirming; then the seat is free again."`
}

// Auth configures passwords, sessions and their tokens.
type Auth struct {
	Issuer            string        `default:"bannou" help:"The iss of access tokens."`
	AccessTTL         time.Duration `name:"access-ttl" default:"15m" help:"How long an access token lives."`
	IdleTTL           time.Duration `name:"idle-ttl" default:"336h" help:"How long a session lives that is not refreshed."`
	SessionTTL        time.Duration `name:"session-ttl" default:"2160h" help:"How long a session lives at most."`
	RefreshGrace      time.Duration `name:"refresh-grace" default:"30s" help:"How long a refresh token that was used is answered once more with the same next one, where the answer may be lost; 0: not at all."`
	KeyRotation       time.Duration `name:"key-rotation" default:"720h" help:"How long a key signs access tokens."`
	ResetTTL          time.Duration `name:"reset-ttl" default:"30m" help:"How long the token of a letter about a forgotten password is worth something."`
	MaxSessions       int           `name:"max-sessions" default:"20" help:"Sessions of one account; a further login ends the one that was used least lately."`
	Argon2MemoryKiB   int           `name:"argon2-memory-kib" default:"19456" help:"Memory of one hash of a password, in KiB. Passwords that were hashed with other parameters are hashed anew at the next login."`
	Argon2Iterations  int           `name:"argon2-iterations" default:"2" help:"How often it is gone over."`
	Argon2Parallelism int           `name:"argon2-parallelism" default:"1" help:"In how many lanes."`
	Argon2Concurrency int           `name:"argon2-concurrency" default:"4" help:"Hashes at a time on this node: their memory is argon2-memory-kib times this. 256 more wait for their turn."`
	TryWindow         time.Duration `name:"try-window" default:"15m" help:"The time in which tries are counted."`
	TriesPerAccount   int           `name:"tries-per-account" default:"10" help:"Logins of one e-mail address that may fail in it."`
	TriesPerAddress   int           `name:"tries-per-address" default:"100" help:"Logins that may fail in it, and registrations, letters and tokens of letters that may be asked for, from one IP address; of IPv6, from one /64."`
	Letters           int           `default:"3" help:"Letters about a forgotten password that one account is sent in it."`
	TrustedProxies    []string      `name:"trusted-proxies" help:"Networks (CIDR) of proxies whose X-Forwarded-For says where a request comes from."`
}

// checkAuth refuses what makes no sense.
func (c *Config) checkAuth() error {
	a := &c.Auth
	for _, d := range []struct {
		flag       string
		value      time.Duration
		least, max time.Duration
	}{
		{"access-ttl", a.AccessTTL, time.Second, 24 * time.Hour},
		{"idle-ttl", a.IdleTTL, a.AccessTTL, 10 * 365 * 24 * time.Hour},
		{"session-ttl", a.SessionTTL, a.AccessTTL, 10 * 365 * 24 * time.Hour},
		{"refresh-grace", a.RefreshGrace, 0, 10 * time.Minute},
		{"key-rotation", a.KeyRotation, time.Minute, 10 * 365 * 24 * time.Hour},
		{"reset-ttl", a.ResetTTL, time.Minute, 7 * 24 * time.Hour},
		{"try-window", a.TryWindow, time.Second, 24 * time.Hour},
	} {
		if d.value < d.least || d.value > d.max {
			return fmt.Errorf("--auth-%s %s: choose from %s to %s", d.flag, d.value, d.least, d.max)
		}
	}
	for _, n := range []struct {
		flag              string
		value, least, max int
	}{
		{"max-sessions", a.MaxSessions, 1, 1000},
		{"argon2-memory-kib", a.Argon2MemoryKiB, 8 * a.Argon2Parallelism, 1 << 20},
		{"argon2-iterations", a.Argon2Iterations, 1, 64},
		{"argon2-parallelism", a.Argon2Parallelism, 1, 255},
		{"argon2-concurrency", a.Argon2Concurrency, 1, 1024},
		{"tries-per-account", a.TriesPerAccount, 1, 1_000_000},
		{"tries-per-address", a.TriesPerAddress, 1, 1_000_000_000},
		{"letters", a.Letters, 1, 1000},
	} {
		if n.value < n.least || n.value > n.max {
			return fmt.Errorf("--auth-%s %d: choose from %d to %d", n.flag, n.value, n.least, n.max)
		}
	}
	if c.GameSession.ConfirmWithin <= 0 {
		return fmt.Errorf("--game-session-confirm-within %s: choose a positive duration, such as 30s", c.GameSession.ConfirmWithin)
	}
	if c.Accounts.EraseAfter < 0 {
		return fmt.Errorf("--accounts-erase-after %s: choose 0 or a positive duration, such as 720h", c.Accounts.EraseAfter)
	}
	if a.Issuer == "" {
		return errors.New("--auth-issuer is empty: choose a name such as bannou, or leave it out")
	}
	_, err := a.Proxies()
	return err
}

// Proxies are the networks of TrustedProxies.
func (a *Auth) Proxies() (networks []netip.Prefix, err error) {
	for _, text := range a.TrustedProxies {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--auth-trusted-proxies %q is not a network: write it as 10.0.0.0/8", text)
		}
		networks = append(networks, network)
	}
	return networks, nil
}
