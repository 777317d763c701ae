package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A connection string of Dapr's has no database, and a password may have any character.
func TestDaprDSN(t *testing.T) {
	for text, want := range map[string]string{
		"u:p@tcp(h:3306)/":                            "u:p@tcp(h:3306)/information_schema",
		"u:p@tcp(h:3306)/?allowNativePasswords=true":  "u:p@tcp(h:3306)/information_schema?allowNativePasswords=true",
		"u:p@tcp(h:3306)/shop?tls=true":               "u:p@tcp(h:3306)/information_schema?tls=true",
		"u:a/b@tcp(h:3306)/?tls=true":                 "u:a/b@tcp(h:3306)/information_schema?tls=true",
		"u:a/@b@tcp(h:3306)/":                         "u:a/@b@tcp(h:3306)/information_schema",
		"u:p@unix(/run/mysqld/mysqld.sock)/?tls=true": "u:p@unix(/run/mysqld/mysqld.sock)/information_schema?tls=true",
		"u:p@tcp/": "u:p@tcp/information_schema",
		"u:p@/":    "u:p@/information_schema",
	} {
		dsn, err := daprDSN(text)
		require.NoError(t, err, text)
		require.Equal(t, want, dsn)
	}
	for _, text := range []string{"", "tcp(h:3306)/", "u:secret@tcp(h:3306)"} {
		_, err := daprDSN(text)
		require.ErrorContains(t, err, "user:password@tcp(host:3306)", text)
		require.NotContains(t, err.Error(), "secret")
	}
}
