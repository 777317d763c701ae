package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
)

const secretKey = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

// The log of events is beside the lasting stores, unless it is said otherwise.
func TestWhereTheLogIs(t *testing.T) {
	for backend, args := range map[string][]string{
		"sqlite": {}, "mysql": {"--state-mysql-dsn", "u:p@tcp(h:1)/d"}, "memory": {"--events-backend", "memory"},
	} {
		f, err := parse(t, args...)
		require.NoError(t, err)
		require.Equal(t, backend, f.Events.Backend)
		require.Equal(t, "events", f.Events.Table)
	}
	f, err := parse(t, "--state-mysql-dsn", "u:p@tcp(h:1)/d", "--events-backend", "sqlite", "--events-table", "log_2")
	require.NoError(t, err)
	require.Equal(t, "sqlite", f.Events.Backend)
	for want, args := range map[string][]string{
		"--state-mysql-dsn": {"--events-backend", "mysql"},
		"--events-table":    {"--events-table", "Events; DROP"},
		"both set":          {"--events-master-key", secretKey, "--events-master-key-file", "f"},
	} {
		_, err := parse(t, args...)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), secretKey)
	}
}

// Rules are read with names of categories as they are, dots too, and what is left empty is a mistake.
func TestEventsAccess(t *testing.T) {
	const apps = "apps:\n  bank: {tokenFile: t}\n"
	f, err := parse(t, "--config", file(t, apps+"events:\n  table: log\n  access:\n    account: {read: ['*'], write: [bank]}\n    bank.account: {read: [bank]}\n"))
	require.NoError(t, err)
	require.Equal(t, map[string]config.Access{"account": {Read: []string{"*"}, Write: []string{"bank"}}, "bank.account": {Read: []string{"bank"}}}, f.Events.Access)
	require.Equal(t, "log", f.Events.Table)
	for text, want := range map[string]string{
		"events:\n  access:\n":                              "events.access is empty",
		"events:\n  access:\n    account:\n":                "events.access.account is empty",
		"events:\n  access:\n    account: {reed: [bank]}\n": "reed",
		"events:\n  access:\n    account: {read: [shop]}\n": `"shop"`,
		"events:\n  access: [account]\n":                    "events.access",
		"events:\n  tabel: log\n":                           "events.tabel",
	} {
		_, err := parse(t, "--config", file(t, apps+text))
		require.ErrorContains(t, err, want, text)
	}
}

// A master key is read from the file, with those that it replaces, and no error repeats it.
func TestMasterKeys(t *testing.T) {
	for _, e := range []config.Events{{MasterKey: secretKey}, {MasterKeyFile: file(t, secretKey+"\n"+secretKey+"\n")}} {
		keys, err := e.MasterKeys()
		require.NoError(t, err)
		require.NotEmpty(t, keys)
	}
	keys, err := new(config.Events).MasterKeys()
	require.NoError(t, err)
	require.Empty(t, keys)
	for _, e := range []config.Events{{MasterKey: secretKey[1:]}, {MasterKeyFile: file(t, secretKey[1:])}, {MasterKeyFile: "/nowhere"}} {
		_, err := e.MasterKeys()
		require.Error(t, err)
		require.NotContains(t, err.Error(), secretKey[2:])
	}
}
