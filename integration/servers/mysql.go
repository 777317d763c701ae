package servers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// MySQLDSN is the environment variable that names a MySQL or MariaDB for shared use, in the form of github.com/go-sql-driver/mysql.
const MySQLDSN = "BANNOU_TEST_MYSQL_DSN"

func mysqlProduct() product {
	return product{name: "MySQL", debian: "mariadb-server", fedora: "mariadb-server", homebrew: "mariadb", variable: MySQLDSN}
}

const (
	mysqlUser     = "bannou"
	mysqlDatabase = "bannou"
)

// MySQLServer is a MariaDB or MySQL server, and one of its databases.
type MySQLServer struct {
	*Server

	// DSN is user:password@tcp(host:port)/database, in the form of github.com/go-sql-driver/mysql. The user may do everything.
	DSN string
	// Addr is host:port.
	Addr string
	// Database is the database of the DSN; it exists and is empty.
	Database string
}

// MySQLOptions configures a MySQL. The zero value keeps every transaction that was committed, also over a Kill.
type MySQLOptions struct {
	// Args are added to the command line: "--innodb-buffer-pool-size=1G".
	Args []string
}

// StartMySQL starts a MariaDB, or else a MySQL, of its own, which the caller has to Close. It returns when the server answers SELECT 1, or with
// an error that shows the end of its log. An error is ErrMissing when neither is installed.
func StartMySQL(ctx context.Context, o MySQLOptions) (*MySQLServer, error) {
	return startMySQL(ctx, o, token())
}

func startMySQL(ctx context.Context, o MySQLOptions, password string) (*MySQLServer, error) {
	program, found := findMySQL()
	if !found {
		return nil, mysqlProduct().missing("mariadbd or mysqld")
	}
	return launchMySQL(ctx, program, o, password)
}

func launchMySQL(ctx context.Context, program string, o MySQLOptions, password string) (*MySQLServer, error) {
	server, ports, err := launch(ctx, plan{
		product: mysqlProduct(),
		ports:   1,
		prepare: func(ctx context.Context, f *folder, ports []int) ([]command, error) {
			return prepareMySQL(ctx, f, program, ports[0], password, o)
		},
		probe: func(ctx context.Context, ports []int) error { return selectOne(ctx, mysqlConfig(ports[0], password)) },
	})
	if err != nil {
		return nil, err
	}
	return mysqlAt(server, mysqlConfig(ports[0], password)), nil
}

func findMySQL() (string, bool) {
	return executable([]string{"mariadbd", "mysqld"}, []string{
		"/usr/sbin/mariadbd", "/usr/sbin/mysqld", "/usr/libexec/mariadbd", "/usr/libexec/mysqld", "/usr/local/sbin/mysqld",
		"/opt/homebrew/bin/mariadbd", "/opt/homebrew/bin/mysqld",
	}, nil)
}

// prepareMySQL fills a data folder and returns the command of the server.
func prepareMySQL(ctx context.Context, f *folder, program string, port int, password string, o MySQLOptions) ([]command, error) {
	install, err := installMySQL(ctx, f, program)
	if err != nil {
		return nil, err
	}
	if err := f.run(ctx, install); err != nil {
		return nil, err
	}
	if err := os.Remove(f.log(install.name)); err != nil { // long, and of no interest once it is done
		return nil, err
	}
	// Run at each start, before connections are taken. Over TCP the root account of a fresh installation differs between MariaDB and MySQL.
	account := fmt.Sprintf("CREATE USER IF NOT EXISTS '%s'@'%%' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO '%s'@'%%' WITH GRANT OPTION;\nCREATE DATABASE IF NOT EXISTS %s CHARACTER SET utf8mb4;\n",
		mysqlUser, password, mysqlUser, mysqlDatabase)
	if err := os.WriteFile(f.file("account.sql"), []byte(account), 0o600); err != nil {
		return nil, err
	}
	args := append(mysqlDefaults(f),
		"--port="+strconv.Itoa(port), "--bind-address=127.0.0.1", "--skip-name-resolve", "--socket="+f.file("socket"), "--pid-file="+f.file("pid"),
		"--init-file="+f.file("account.sql"), "--tmpdir="+f.path, "--skip-log-bin", "--performance-schema=OFF", "--max-connections=500",
		"--max-allowed-packet=16M", // MariaDB's default, and a quarter of MySQL's
		"--loose-mysqlx=OFF")       // MySQL's second protocol would listen on its default port
	return []command{{name: "mysqld", path: program, args: append(args, o.Args...), env: environment(f.path)}}, nil
}

// installMySQL returns the command that fills the data folder.
func installMySQL(ctx context.Context, f *folder, program string) (command, error) {
	version, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return command{}, fmt.Errorf("ask %s for its version: %w", program, err)
	}
	install := command{name: "install", path: program, args: append(mysqlDefaults(f), "--initialize-insecure"), env: environment(f.path)}
	if !strings.Contains(string(version), "MariaDB") {
		return install, nil
	}
	script, found := executable([]string{"mariadb-install-db", "mysql_install_db"}, []string{
		"/usr/bin/mariadb-install-db", "/usr/local/bin/mariadb-install-db", "/opt/homebrew/bin/mariadb-install-db",
	}, nil)
	if !found {
		return command{}, mysqlProduct().missing("mariadb-install-db")
	}
	install.path = script
	install.args = append(mysqlDefaults(f), "--auth-root-authentication-method=normal", "--skip-test-db", "--tmpdir="+f.path)
	return install, nil
}

// mysqlDefaults are the options of both the installation and the server.
func mysqlDefaults(f *folder) []string {
	args := []string{"--no-defaults", "--datadir=" + f.file("data")}
	if os.Geteuid() == 0 {
		args = append(args, "--user=root") // it refuses to run as root unless told to
	}
	return args
}

// externalMySQL returns the MySQL that the environment names, if it does.
func externalMySQL() (*MySQLServer, bool, error) {
	dsn := os.Getenv(MySQLDSN)
	if dsn == "" {
		return nil, false, nil
	}
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, true, fmt.Errorf("%s is not the address of a MySQL: want user:password@tcp(host:3306)/", MySQLDSN) // without err, which may quote the password
	}
	config.Logger = &mysql.NopLogger{}
	server := &Server{name: mysqlProduct().name, refusal: ErrExternal, probe: func(ctx context.Context) error { return selectOne(ctx, config) }}
	return mysqlAt(server, config), true, nil
}

func mysqlConfig(port int, password string) *mysql.Config {
	config := mysql.NewConfig()
	config.User, config.Passwd, config.DBName = mysqlUser, password, mysqlDatabase
	config.Net, config.Addr = "tcp", local(port)
	config.Logger = &mysql.NopLogger{} // probes of a server that is starting fail, and that is no news
	return config
}

func mysqlAt(server *Server, config *mysql.Config) *MySQLServer {
	return &MySQLServer{Server: server, DSN: config.FormatDSN(), Addr: config.Addr, Database: config.DBName}
}

func selectOne(ctx context.Context, config *mysql.Config) error {
	return execMySQL(ctx, config, "SELECT 1")
}

func execMySQL(ctx context.Context, config *mysql.Config, statement string) error {
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	_, err = db.ExecContext(ctx, statement)
	return errors.Join(err, db.Close())
}

// database creates a database of the server for one test; release drops it.
func (m *MySQLServer) database(ctx context.Context) (part *MySQLServer, release func(context.Context) error, err error) {
	config, err := mysql.ParseDSN(m.DSN)
	if err != nil {
		return nil, nil, fmt.Errorf("address of %s: %w", m.name, err)
	}
	config.Logger = &mysql.NopLogger{}
	name := "test_" + token()
	if err := execMySQL(ctx, config, "CREATE DATABASE "+name+" CHARACTER SET utf8mb4"); err != nil {
		return nil, nil, fmt.Errorf("create a database of %s: %w", m.name, err)
	}
	own := config.Clone()
	own.DBName = name
	drop := func(ctx context.Context) error { return execMySQL(ctx, config, "DROP DATABASE IF EXISTS "+name) }
	return mysqlAt(m.part(func(ctx context.Context) error { return selectOne(ctx, own) }), own), drop, nil
}
