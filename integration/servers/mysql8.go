package servers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// NewMySQL8 starts an Oracle MySQL 8, where NewMySQL starts a MariaDB if there is one, which this test may kill, pause and restart, and closes it when
// the test is over. It takes 5 s. Debian has no such MySQL: the test is skipped where neither 'make deps' found one nor the PATH has one.
func NewMySQL8(t testing.TB, o MySQLOptions) *MySQLServer {
	t.Helper()
	program, found := findMySQL8(t.Context())
	if !found {
		t.Skip("no MySQL 8 here: 'make deps' fetches one on Linux with x86-64 and Debian's tools; elsewhere put its mysqld on the PATH")
	}
	return own(t, mysqlProduct(), o, func(ctx context.Context, o MySQLOptions) (*MySQLServer, error) {
		return launchMySQL(ctx, program, o, token())
	})
}

// NewDatabase returns a database of the server for this test alone, empty, and dropped when the test is over.
func (m *MySQLServer) NewDatabase(t testing.TB) *MySQLServer {
	t.Helper()
	return lend(t, m, nil, (*MySQLServer).database)
}

// findMySQL8 finds what tools/install-mysql has unpacked, or one that is installed.
func findMySQL8(ctx context.Context) (string, bool) {
	places := []string{"/usr/sbin/mysqld", "/usr/libexec/mysqld", "/usr/local/sbin/mysqld", "/opt/homebrew/bin/mysqld"}
	for folder, err := os.Getwd(); err == nil; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, "go.work")); err == nil {
			places = append(places, filepath.Join(folder, ".bin", "mysql-8.0", "mysqld"))
			break
		}
		if folder == filepath.Dir(folder) {
			break
		}
	}
	return executable([]string{"mysqld"}, places, func(path string) bool {
		version, err := exec.CommandContext(ctx, path, "--version").Output()
		return err == nil && strings.Contains(string(version), "Ver 8.") && !strings.Contains(string(version), "MariaDB")
	})
}
