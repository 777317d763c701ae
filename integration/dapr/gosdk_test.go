package dapr_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// saidInGo is what the program with Dapr's SDK for Go sees on the facade when it speaks gRPC.
const saidInGo = `invoke ["{\"heard\":\"{\\\"name\\\":\\\"Ada\\\"}\",\"query\":\"a=1\",\"type\":\"application/json\",\"verb\":\"PUT\"}","OK"]
invoke without data ["{\"heard\":\"\",\"query\":\"\",\"type\":\"\",\"verb\":\"GET\"}","OK"]
invoke what fails ["Unknown"]
invoke nobody ["Internal"]
save ["OK","OK","OK"]
get ["{\"n\":9007199254740993}","text, no JSON","AP8=",0,""]
bulk [{"a":"{\"n\":9007199254740993}","b":"text, no JSON","none":""}]
etags ["OK","Aborted","Aborted"]
transaction ["OK"]
delete several ["OK","OK"]
after them [{"a":"{\"n\":2}","b":"","c":"{\"n\":4}","x":"","y":""}]
delete ["OK"]
event in JSON ["OK","a UUID","app","com.dapr.event.sent","1.0","application/json","orders","local","{\"id\":7}"]
event of text ["OK","a UUID","app","com.dapr.event.sent","1.0","text/plain","orders","local","some text"]
event of bytes ["OK","a UUID","app","com.dapr.event.sent","1.0","application/octet-stream","orders","local","\u0000\u0001\ufffd"]
event with attributes ["OK","own-id","app","own-type","1.0","application/json","orders","local","{\"id\":8}"]
several events ["OK",0,["application/json {\"id\":9}","application/octet-stream bytes","text/plain text"]]
streamed ["OK","streamed","com.dapr.event.sent","{\"answer\":\"success\"}"]
streamed ["OK","streamed","com.dapr.event.sent","{\"answer\":\"drop\"}"]
stream closed [true]
a store that there is not ["InvalidArgument DAPR_STATE_NOT_FOUND"]
a key with the separator ["InvalidArgument DAPR_STATE_ILLEGAL_KEY"]
a broker that there is not ["InvalidArgument DAPR_PUBSUB_NOT_FOUND"]
a time to live that is no number ["InvalidArgument"]
a query of a store that cannot ["Internal DAPR_STATE_QUERY_FAILED"]
set metadata ["OK"]
metadata ["app","said"]
secret [{"plain":"one"},"OK"]
`

// saidMoreInGo is what it sees of what daprd has not in its stable components.
const saidMoreInGo = `query ["p1","{\"city\":\"Ulm\"}"]
bytes in a store of JSON ["AAH/"]
lock ["me",true]
lock ["you",false]
unlock ["you","LOCK_BELONGS_TO_OTHERS"]
unlock ["me","SUCCESS"]
unlock ["me","LOCK_DOES_NOT_EXIST"]
`

// overHTTP are lines that differ when the app speaks HTTP, on both sides: the SDK keeps the quotes of text, and an app's failure is a status.
func overHTTP(lines string) string {
	return strings.NewReplacer(`"some text"]`, `"\"some text\""]`, `"text/plain text"`, `"text/plain \"text\""`, `fails ["Unknown"]`, `fails ["Unknown Internal Server Error"]`).Replace(lines)
}

// onDapr are lines that differ on daprd: a caller's mistake is an error of the sidecar there.
func onDapr(lines string) string {
	return strings.Replace(lines, `no number ["InvalidArgument"]`, `no number ["Internal"]`, 1)
}

// Dapr's own SDK for Go, with its client and its service, works on the facade as it does on daprd, whether the app speaks HTTP or gRPC.
func TestGoSDK(t *testing.T) {
	sdk := builtGoSDK(t)
	for _, protocol := range []string{"grpc", "http"} {
		for _, name := range []string{"facade", "dapr"} {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				// The app is the program's. Daprd waits for it, and it for daprd: they start together.
				_, appPort, err := net.SplitHostPort(freeAddress(t))
				require.NoError(t, err)
				port, program := make(chan string, 1), make(chan string, 1)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				go func() {
					printed, err := exec.CommandContext(ctx, sdk, protocol, appPort, <-port, name).CombinedOutput()
					if err != nil {
						printed = append(printed, err.Error()...)
					}
					program <- string(printed)
				}()
				if name == "facade" {
					a := newApp(t, "[]")
					a.elsewhere = "127.0.0.1:" + appPort
					at := freeAddress(t)
					port <- at[strings.LastIndex(at, ":")+1:]
					newFacade(t, components(t), a, "--dapr-grpc-listen", at, "--dapr-app-protocol", protocol)
				} else {
					number, err := strconv.Atoi(appPort)
					require.NoError(t, err)
					servers.NewDaprd(t, servers.DaprdOptions{
						AppPort: number, AppProtocol: protocol, Resources: components(t), Begin: func(_, grpcPort int) { port <- strconv.Itoa(grpcPort) },
					})
				}
				want := saidInGo
				if name == "dapr" {
					want = onDapr(want)
				} else {
					want += saidMoreInGo
				}
				if protocol == "http" {
					want = overHTTP(want)
				}
				require.Equal(t, want, <-program)
			})
		}
	}
}

// builtGoSDK builds the program, which takes a few seconds, and longer the first time.
func builtGoSDK(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "daprsdk")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join("..", "..", "tools", "daprsdk")
	build.Env = append(os.Environ(), "GOWORK=off")
	printed, err := build.CombinedOutput()
	require.NoError(t, err, "build the program with Dapr's SDK for Go: %s", printed)
	return program
}
