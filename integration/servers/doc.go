// Package servers gives tests real RabbitMQ, Redis and MariaDB or MySQL servers.
//
// A server is started from the installed program, on free ports of 127.0.0.1, with its data, its log and its configuration in a temporary
// folder. It never reads the system's configuration, never uses a default port, and works as root and as a plain user. Starting is over when
// the server answers in its own protocol.
//
// There are two kinds. A shared server is started by the first test of a binary that asks for it and serves all of them; each call gives a
// part that no other test sees: a virtual host of RabbitMQ, a numbered database of Redis, a database of MySQL.
//
//	func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }
//
//	func TestOrders(t *testing.T) {
//		broker := servers.RabbitMQ(t) // broker.URL names a virtual host of this test alone
//		...
//	}
//
// A private server, from [NewRabbitMQ], [NewRedis], [NewRedisSentinel] or [NewMySQL], belongs to one test, which may kill, pause and restart
// it, and so do the nodes of a cluster, from [NewRabbitCluster]. Programs that are no tests use [StartRabbitMQ], [StartRabbitCluster],
// [StartRedis], [StartRedisSentinel] and [StartMySQL], and Close.
//
// Nothing stays behind. Beside each server a small shell waits for the end of this process, however it comes, then kills the server's
// process groups and removes its folder. Main only makes sure that this has happened before the test binary ends. No goroutine runs
// between calls, so that a test may check for leaked goroutines of its own.
//
// Shared servers that run already are used instead when the environment names them; they refuse Kill, Pause, Restart and Stop with
// [ErrExternal], and private servers are still started from the installed programs:
//
//	BANNOU_TEST_RABBITMQ_URL  amqp://user:password@host:5672  a user with the tag administrator
//	BANNOU_TEST_RABBITMQ_API  http://host:15672               its management API; by default the same host, port 15672
//	BANNOU_TEST_REDIS_URL     redis://user:password@host:6379 databases that hold no key are used, others left alone
//	BANNOU_TEST_MYSQL_DSN     user:password@tcp(host:3306)/   a user who may create databases
//
// A program that is not installed skips the test, and fails it where CI is true.
//
// The package needs a Unix system.
package servers
