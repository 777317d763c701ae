package node

import (
	"cmp"
	"slices"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/accounts"
	"github.com/bannou-mesh/bannou/services/auth"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/gamesession"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/permissions"
)

// keepsLog reports whether a service of the node uses the log of events.
func keepsLog(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Services, func(s string) bool { return s == "events" || s == "accounts" || s == "sagas" })
}

// gameStores are those that the services of a game backend keep for themselves. The state service shows them to nobody: they are not
// the stores called auth and accounts, which are for programs.
func gameStores(cfg *config.Config, configuration string) (stores []state.StoreConfig) {
	lasting, expiring := cfg.EngineFor("mysql"), cfg.EngineFor("redis")
	if slices.Contains(cfg.Services, "accounts") {
		stores = append(stores, state.StoreConfig{Name: accounts.ListStore, Backend: lasting, Indexes: accounts.ListIndexes()})
	}
	if slices.Contains(cfg.Services, "auth") {
		stores = append(stores, state.StoreConfig{Name: auth.SessionStore, Backend: expiring},
			state.StoreConfig{Name: auth.CredentialStore, Backend: lasting}, state.StoreConfig{Name: auth.KeyStore, Backend: lasting})
	}
	if slices.Contains(cfg.Services, "permissions") {
		stores = append(stores, state.StoreConfig{Name: permissions.SessionStore, Backend: expiring},
			state.StoreConfig{Name: permissions.ServiceStore, Backend: configuration})
	}
	if slices.Contains(cfg.Services, "connect") {
		stores = append(stores, state.StoreConfig{Name: connect.SessionStore, Backend: expiring})
	}
	if slices.Contains(cfg.Services, "game-session") && !slices.Contains(cfg.Services, "state") { // which has all stores of programs
		own := cfg.AllStores()[gamesession.Store]
		stores = append(stores, state.StoreConfig{
			Name: gamesession.Store, Backend: own.Backend, KeyPrefix: own.KeyPrefix, TableName: own.TableName, Indexes: own.Indexes, PublishChanges: own.PublishChanges,
		})
	}
	return stores
}

// accounts makes the accounts service over the node's log.
func (p parts) accounts() (host.Service, error) {
	log, _, err := p.openShared()
	if err != nil {
		return nil, err
	}
	return accounts.New(accounts.Config{Log: log, Factory: p.factory, Bus: p.busOf("accounts"), Logger: p.log, MeterProvider: p.meter})
}

// auth makes the auth service, which calls the accounts service wherever it is. What is 0 in the settings is negative for the service,
// where 0 is the default.
func (p parts) auth() (host.Service, error) {
	a := p.cfg.Auth
	proxies, err := a.Proxies()
	if err != nil {
		return nil, err
	}
	return auth.New(auth.Config{
		Factory: p.factory, Bus: p.busOf("auth"), Accounts: auth.NewMeshAccounts(p.client),
		Issuer: a.Issuer, AccessTTL: a.AccessTTL, IdleTTL: a.IdleTTL, SessionTTL: a.SessionTTL, RefreshGrace: cmp.Or(a.RefreshGrace, -1),
		KeyRotation: a.KeyRotation, ResetTTL: a.ResetTTL, MaxSessions: a.MaxSessions, Proxies: proxies, NodesTell: p.guard != nil,
		Hashing: auth.Hashing{
			MemoryKiB: uint32(a.Argon2MemoryKiB), Iterations: uint32(a.Argon2Iterations), Parallelism: uint8(a.Argon2Parallelism),
			Concurrency: a.Argon2Concurrency,
		},
		Throttle: auth.Throttle{Window: a.TryWindow, PerAccount: a.TriesPerAccount, PerAddress: a.TriesPerAddress, Letters: a.Letters},
		Logger:   p.log, MeterProvider: p.meter,
	})
}
