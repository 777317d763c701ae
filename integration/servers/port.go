package servers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
)

// Ports are taken below the range that systems give to outgoing connections (from 32768 on Linux, 49152 elsewhere). A client that redials a
// server that is down could otherwise be given that very port as its own, connect to itself, and keep the server from coming back.
const (
	lowestPort  = 12000
	highestPort = 32000
)

// usual reports whether a port of the range is some server's default. A program that tries it must not find ours.
func usual(port int) bool {
	switch port {
	case 15671, 15672, 15674, 15675, 15692, 16379, 25672, 26379, 27017:
		return true
	}
	return false
}

// freePorts returns n different ports of 127.0.0.1 on which nobody listens now.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort) //nolint:gosec // no secret
		if !usual(port) && !slices.Contains(ports, port) && free(ctx, port) {
			ports = append(ports, port)
		}
	}
	return nil, fmt.Errorf("found no %d free ports between %d and %d of 127.0.0.1", n, lowestPort, highestPort)
}

// FreeAddress returns 127.0.0.1:port, of a port on which nobody listens now.
func FreeAddress(ctx context.Context) (string, error) {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return "", err
	}
	return local(ports[0]), nil
}

func free(ctx context.Context, port int) bool {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", local(port))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

// local returns the address of a port of 127.0.0.1.
func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// reachable reports whether somebody listens at the address.
func reachable(ctx context.Context, address string) error {
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return connection.Close()
}
