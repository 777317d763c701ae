package rabbitbus_test

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// Whichever address is the first, both connections try each of the others before they pause, here for an hour.
func TestEveryAddressIsTriedBeforeAPause(t *testing.T) {
	const addresses, links = 3, 2
	tried := make(chan string)
	cfg := rabbitbus.Config{RetryDelay: time.Hour, MaxRetryDelay: time.Hour}
	for range addresses {
		cfg.URLs = append(cfg.URLs, "amqp://"+hangUp(t, tried))
	}
	d, err := rabbitbus.New(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close(t.Context())) }()
	counts := map[string]int{}
	for range addresses * links {
		select {
		case address := <-tried:
			counts[address]++
		case <-time.After(10 * time.Second):
			require.Fail(t, "an address was not tried", "%v", counts)
		}
	}
	require.Len(t, counts, addresses)
	for address, n := range counts {
		require.Equal(t, links, n, address)
	}
}

// hangUp listens at an address that it returns, tells of each connection and closes it.
func hangUp(t *testing.T, tried chan<- string) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address, ended := listener.Addr().String(), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
			select {
			case tried <- address:
			case <-t.Context().Done():
			}
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		<-ended
	})
	return address
}
