package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/link"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// Instances are cut off from their caller: packets vanish, in one direction or in both, and nobody is told. The caller is this binary once
// more in a network namespace, each instance has another, and links between them are all there is: nothing reaches the system's network,
// and the namespaces end with their processes. It mostly waits for cuts to end, as TestMesh does for other harms, and runs beside that.
func TestMeshPartitioned(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed: network namespaces cannot be linked (Debian: iproute2 and util-linux)", program)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may make network namespaces")
	}
	apart(t, syscall.CLONE_NEWNET, partition)
}

// partition is the test within the namespace.
func partition(t *testing.T) {
	ctx := within(t, 2*patience)
	require.NoError(t, ip(ctx, "link set lo up"))
	f := bareFleet(t)
	for n, appID := range []string{"alpha", "alpha", "alpha", "beta", "beta"} {
		require.NoError(t, f.startApart(ctx, appID, n))
	}
	cuts := []cut{
		{"instance cut off", "link set cut down", "link set cut up"},
		// Whoever the packets are from, they are looked up in the tables of routes: here a rule before those has them vanish.
		{"requests to an instance lost", "rule add pref 1 from 198.51.100.1 blackhole", "rule del pref 1"},
		{"answers of an instance lost", "rule add pref 1 to 198.51.100.1 blackhole", "rule del pref 1"},
	}
	if !*long {
		cuts = cuts[:1]
	}
	for _, c := range cuts {
		t.Run(c.name, func(t *testing.T) {
			endureMesh(t, f, meshFault{name: c.name + " for 6 s", times: 1, harm: func(ctx context.Context, r *meshRun) error {
				in := r.of("alpha")[0]
				return errors.Join(in.network(ctx, c.begin), faults.Pause(ctx, lasting(6*time.Second)), in.network(ctx, c.end))
			}})
		})
	}
}

// A cut is what is done in the network of an instance to begin it and to end it.
type cut struct{ name, begin, end string }

// startApart starts an instance in a network of its own, links it with the caller's, and registers it.
func (f *fleet) startApart(ctx context.Context, appID string, n int) error {
	in, err := f.launch(ctx, description{AppID: appID, Listen: "0.0.0.0:4000"}, syscall.CLONE_NEWNET)
	if err != nil {
		return err
	}
	// 198.51.100.0/24 is set aside for documentation; here it exists between the two namespaces only.
	const caller = "198.51.100.1"
	its := "198.51.100." + strconv.Itoa(10+n)
	name, pid := fmt.Sprintf("to-%d", n), strconv.Itoa(in.cmd.Process.Pid)
	if err := errors.Join(
		ip(ctx, "link add "+name+" type veth peer name cut netns "+pid),
		ip(ctx, "addr add "+caller+" peer "+its+" dev "+name), ip(ctx, "link set "+name+" up"),
		in.network(ctx, "link set lo up"), in.network(ctx, "addr add "+its+" peer "+caller+" dev cut"), in.network(ctx, "link set cut up"),
		// The table of the addresses that are here comes first by default, and nothing before it.
		in.network(ctx, "rule add pref 10 lookup local"), in.network(ctx, "rule del pref 0"),
	); err != nil {
		return err
	}
	in.address = net.JoinHostPort(its, "4000")
	l, err := link.Open(f.servers, "registrar", quiet())
	if err != nil {
		return err
	}
	return errors.Join(
		l.Registry.Register(ctx, mesh.Endpoint{AppID: appID, InstanceID: in.InstanceID, Host: its, Port: 4000, Services: meshServices()}),
		l.Close(ctx))
}

func ip(ctx context.Context, words string) error { return command(ctx, "ip", strings.Fields(words)...) }

// network changes the network of an instance.
func (in *instance) network(ctx context.Context, words string) error {
	return command(ctx, "nsenter", append([]string{"--net", "--target", strconv.Itoa(in.cmd.Process.Pid), "ip"}, strings.Fields(words)...)...)
}

func command(ctx context.Context, name string, args ...string) error {
	said, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said)
	}
	return nil
}
