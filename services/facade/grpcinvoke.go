package facade

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcmeta "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/bannou-mesh/bannou/services/facade/internal/daprpb"
)

// headerStatus carries the status of an app that speaks gRPC over the HTTP between two facades, as base64 of google.rpc.Status.
const headerStatus = "Bannou-Grpc-Status"

// invokeService passes a call on, to the facade's own app or through the mesh. Between nodes it is HTTP, whatever the two apps speak.
func (s *Service) invokeService(ctx context.Context, asked *daprpb.InvokeServiceRequest) (*daprpb.InvokeResponse, error) {
	target, message := asked.GetId(), asked.GetMessage()
	if target == "" {
		return nil, refuse(http.StatusNotFound, "ERR_DIRECT_INVOKE", "failed getting app id: the request's id is empty")
	}
	request, err := s.invocation(ctx, target, message)
	if err != nil {
		return nil, err
	}
	if target == s.cfg.AppID && s.channel != nil {
		kept := &keptResponse{head: http.Header{}, limit: s.cfg.MaxBodyBytes}
		if broken := s.keep(kept, request); broken && !kept.over {
			return nil, invokeRefusal(target, errors.New("the app broke off its answer"))
		}
		if kept.failed != nil && kept.head.Get(headerStatus) == "" {
			return nil, kept.failed
		}
		return s.invoked(ctx, target, kept.status, kept.head, kept.body.Bytes(), kept.over)
	}
	response, err := s.cfg.Client.Do(ctx, target, request)
	if err != nil {
		return nil, invokeRefusal(target, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, s.cfg.MaxBodyBytes+1))
	if err != nil {
		return nil, invokeRefusal(target, err)
	}
	return s.invoked(ctx, target, response.StatusCode, response.Header, body, int64(len(body)) > s.cfg.MaxBodyBytes)
}

// keep has the app answer into kept, and reports whether the answer was broken off: a proxy tells that by ending the request that it serves.
func (s *Service) keep(kept *keptResponse, request *http.Request) (broken bool) {
	defer func() {
		switch caught := recover(); caught {
		case nil:
		case http.ErrAbortHandler:
			broken = true
		default:
			panic(caught)
		}
	}()
	served := context.WithValue(request.Context(), http.ServerContextKey, s.server) // otherwise the proxy takes the call for a test, and says nothing
	s.channel.invoke(kept, request.WithContext(served), strings.TrimPrefix(request.URL.EscapedPath(), "/"))
	return false
}

// invocation is the call as a request over HTTP. A call without a verb is a POST.
func (s *Service) invocation(ctx context.Context, target string, message *daprpb.InvokeRequest) (*http.Request, error) {
	verb := http.MethodPost
	if v := message.GetHttpExtension().GetVerb(); v != daprpb.HTTPExtension_NONE {
		verb = v.String()
	}
	address := "http://" + target + "/" + strings.TrimPrefix(message.GetMethod(), "/")
	if query := message.GetHttpExtension().GetQuerystring(); query != "" {
		address += "?" + query
	}
	request, err := http.NewRequestWithContext(ctx, verb, address, bytes.NewReader(message.GetData().GetValue()))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "ERR_MALFORMED_REQUEST", "the method %q is no path", message.GetMethod())
	}
	md, _ := grpcmeta.FromIncomingContext(ctx)
	for name, values := range md {
		if passes(name) {
			request.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	if kind := message.GetContentType(); kind != "" {
		request.Header.Set("Content-Type", kind)
	} else if message.GetData() != nil {
		request.Header.Set("Content-Type", "application/json") // Dapr's default
	}
	request.Header.Set("Dapr-Caller-App-Id", s.cfg.AppID)
	request.Header.Set("Dapr-Callee-App-Id", target)
	return request, nil
}

// passes reports whether metadata goes on between gRPC and HTTP as a header: not what belongs to the connection, nor the token, which is for this facade alone.
func passes(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "content-type", "content-length", "connection", "host", "te", "trailer", "transfer-encoding", "upgrade", "keep-alive", "user-agent", "proxy-connection",
		"accept-encoding", "dapr-api-token", "dapr-app-id", "bannou-grpc-status":
		return false
	}
	return !strings.HasPrefix(name, ":") && !strings.HasPrefix(name, "grpc-") && !strings.HasSuffix(name, "-bin")
}

// fits reports whether gRPC has room for a header of HTTP: names have letters, digits, and few other characters there, and values are printable ASCII.
func fits(name, value string) bool {
	plain := func(r rune) bool { return r >= ' ' && r <= '~' }
	named := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	return !strings.ContainsFunc(strings.ToLower(name), func(r rune) bool { return !named(r) }) && !strings.ContainsFunc(value, func(r rune) bool { return !plain(r) })
}

// invoked is the answer to an invocation: that of an app which speaks gRPC as it gave it, and of one which speaks HTTP as Dapr has it: a status that is no
// success is an error with the status in its details.
func (s *Service) invoked(ctx context.Context, target string, code int, head http.Header, body []byte, over bool) (*daprpb.InvokeResponse, error) {
	if over {
		return nil, refuse(http.StatusInternalServerError, "ERR_DIRECT_INVOKE", "failed to invoke, id: %s, err: the answer has more than %d bytes", target, s.cfg.MaxBodyBytes)
	}
	if carried := head.Get(headerStatus); carried != "" {
		if err := readStatus(carried); err != nil {
			return nil, err
		}
	}
	answered := grpcmeta.Pairs("dapr-http-status", strconv.Itoa(code))
	for name, values := range head {
		for _, value := range values {
			if passes(name) && fits(name, value) {
				answered.Append(name, value)
			}
		}
	}
	_ = grpc.SetHeader(ctx, answered) // without it the answer is still one
	if code >= 200 && code <= 299 {
		return &daprpb.InvokeResponse{ContentType: head.Get("Content-Type"), Data: &anypb.Any{Value: body}}, nil
	}
	text := cmp.Or(http.StatusText(code), "HTTP "+strconv.Itoa(code))
	failed := status.New(codeOfHTTP(code), text)
	detailed, err := failed.WithDetails(&errdetails.ErrorInfo{Reason: text, Domain: errorDomain, Metadata: map[string]string{
		"http.code": strconv.Itoa(code), "http.error_message": strings.ToValidUTF8(string(body[:min(len(body), 63)]), ""),
	}})
	if err == nil {
		failed = detailed
	}
	return nil, failed.Err()
}

// readStatus is the error that headerStatus carries; nil: it says OK, or cannot be read.
func readStatus(carried string) error {
	content, err := base64.StdEncoding.DecodeString(carried)
	var read spb.Status
	if err == nil && proto.Unmarshal(content, &read) == nil {
		return status.FromProto(&read).Err()
	}
	return nil // the status of HTTP says it
}

// writeStatus is what headerStatus carries. Details that are too long for a header are left out.
func writeStatus(st *status.Status) string {
	content, err := proto.Marshal(st.Proto())
	if err == nil && len(content) > 4<<10 {
		content, err = proto.Marshal(&spb.Status{Code: st.Proto().GetCode(), Message: st.Message()[:min(len(st.Message()), 2<<10)]})
	}
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(content)
}

// codeOfHTTP is the code that Dapr has for an app's status.
func codeOfHTTP(code int) codes.Code {
	switch code {
	case http.StatusRequestTimeout:
		return codes.Canceled
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.AlreadyExists
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Unknown
}

// httpOfCode is the status that Dapr has for a code.
func httpOfCode(code codes.Code) int {
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.Canceled:
		return http.StatusRequestTimeout
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.Unknown, codes.Internal, codes.DataLoss:
	}
	return http.StatusInternalServerError
}

// A keptResponse is a ResponseWriter that keeps what is written, up to a limit.
type keptResponse struct {
	head   http.Header
	status int
	body   bytes.Buffer
	limit  int64
	over   bool
	failed *refusal // the call came to no answer of the app
}

// Header implements http.ResponseWriter.
func (k *keptResponse) Header() http.Header { return k.head }

// WriteHeader implements http.ResponseWriter.
func (k *keptResponse) WriteHeader(code int) {
	if k.status == 0 && code >= 200 {
		k.status = code
	}
}

// Write implements http.ResponseWriter.
func (k *keptResponse) Write(p []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	if int64(k.body.Len()+len(p)) > k.limit {
		k.over = true
		return 0, errors.New("the answer is too long")
	}
	return k.body.Write(p)
}
