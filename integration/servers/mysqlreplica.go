package servers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// MySQLReplication is a MariaDB and another one that follows it.
type MySQLReplication struct {
	// Primary takes the changes.
	Primary *MySQLServer
	// Replica follows, and is only to be read. Each has its own life.
	Replica *MySQLServer
}

// StartMySQLReplication starts both, which the caller has to Close. It returns when the replica has what the primary had. An error is ErrMissing
// when MariaDB is not installed; MySQL replicates by other statements.
func StartMySQLReplication(ctx context.Context, o MySQLOptions) (*MySQLReplication, error) {
	r := &MySQLReplication{}
	if err := r.start(ctx, o); err != nil {
		return nil, errors.Join(err, r.Close()) //nolint:contextcheck // also when the context has ended
	}
	return r, nil
}

// NewMySQLReplication starts a primary and a replica that this test may kill, pause and restart, and closes them when the test is over.
func NewMySQLReplication(t testing.TB, o MySQLOptions) *MySQLReplication {
	t.Helper()
	return own(t, mysqlProduct(), o, StartMySQLReplication)
}

func (r *MySQLReplication) start(ctx context.Context, o MySQLOptions) (err error) {
	if program, _ := findMySQL(); !strings.HasSuffix(program, "mariadbd") {
		return mysqlProduct().missing("mariadbd")
	}
	password := token()
	primary, replica := o, o
	primary.Args = append([]string{"--log-bin=changes", "--server-id=1"}, o.Args...)
	replica.Args = append([]string{"--server-id=2", "--read-only"}, o.Args...)
	if r.Primary, err = startMySQL(ctx, primary, password); err != nil {
		return err
	}
	if r.Replica, err = startMySQL(ctx, replica, password); err != nil {
		return err
	}
	return r.follow(ctx, password)
}

// follow has the replica begin with all that the primary ever changed, and waits until it has that.
func (r *MySQLReplication) follow(ctx context.Context, password string) error {
	port, err := strconv.Atoi(r.Primary.Addr[strings.LastIndexByte(r.Primary.Addr, ':')+1:])
	if err != nil {
		return err
	}
	for _, statement := range []string{
		fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER='%s', MASTER_PASSWORD='%s', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1",
			port, mysqlUser, password),
		"START SLAVE",
	} {
		if err := r.Replica.exec(ctx, statement); err != nil {
			return fmt.Errorf("have a replica follow: %w", err)
		}
	}
	return r.CatchUp(ctx)
}

// CatchUp waits until the replica has what the primary has now.
func (r *MySQLReplication) CatchUp(ctx context.Context) error {
	var position string
	if err := r.Primary.ask(ctx, "SELECT @@gtid_binlog_pos", &position); err != nil {
		return err
	}
	var late sql.NullInt64
	if err := r.Replica.ask(ctx, "SELECT MASTER_GTID_WAIT('"+position+"', 30)", &late); err != nil {
		return err
	}
	if !late.Valid || late.Int64 != 0 {
		return errors.New("the replica does not follow")
	}
	return nil
}

// Hold has the replica fall behind until Follow.
func (r *MySQLReplication) Hold(ctx context.Context) error {
	return r.Replica.exec(ctx, "STOP SLAVE SQL_THREAD")
}

// Follow has it catch up again.
func (r *MySQLReplication) Follow(ctx context.Context) error {
	return r.Replica.exec(ctx, "START SLAVE")
}

// Logs returns the last lines of both.
func (r *MySQLReplication) Logs() string {
	var logs strings.Builder
	for _, server := range r.servers() {
		logs.WriteString(server.Logs())
	}
	return logs.String()
}

// Close ends both and removes their folders.
func (r *MySQLReplication) Close() error {
	var failures []error
	for _, server := range r.servers() {
		failures = append(failures, server.Close())
	}
	return errors.Join(failures...)
}

func (r *MySQLReplication) servers() []*MySQLServer {
	var servers []*MySQLServer
	for _, server := range []*MySQLServer{r.Replica, r.Primary} {
		if server != nil {
			servers = append(servers, server)
		}
	}
	return servers
}

func (m *MySQLServer) exec(ctx context.Context, statement string) error {
	config, err := mysql.ParseDSN(m.DSN)
	if err != nil {
		return fmt.Errorf("address of %s: %w", m.name, err)
	}
	return execMySQL(ctx, config, statement)
}

func (m *MySQLServer) ask(ctx context.Context, query string, answer any) error {
	db, err := sql.Open("mysql", m.DSN)
	if err != nil {
		return err
	}
	return errors.Join(db.QueryRowContext(ctx, query).Scan(answer), db.Close())
}
