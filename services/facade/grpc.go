package facade

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	grpcmeta "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// The services of Dapr's gRPC API.
const (
	daprService     = "dapr.proto.runtime.v1.Dapr"
	callbackService = "dapr.proto.runtime.v1.AppCallback"
	callbackAlpha   = "dapr.proto.runtime.v1.AppCallbackAlpha"
)

// errorDomain is Dapr's, in the details of errors.
const errorDomain = "dapr.io"

// newGRPCServer serves the gRPC API: the calls of dapr.proto.runtime.v1.Dapr that there is something behind, and the standard health check. Others are
// Unimplemented; there is no reflection.
func (s *Service) newGRPCServer() *grpc.Server {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(int(s.cfg.MaxBodyBytes)),
		grpc.MaxHeaderListSize(64<<10),
		grpc.MaxConcurrentStreams(1000),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}), // a machine that has gone keeps no stream, nor its events
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: daprService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("InvokeService", (*Service).invokeService),
			unary("GetState", (*Service).grpcGetState),
			unary("GetBulkState", (*Service).grpcGetBulkState),
			unary("SaveState", (*Service).grpcSaveState),
			unary("QueryStateAlpha1", (*Service).grpcQueryState),
			unary("DeleteState", (*Service).grpcDeleteState),
			unary("DeleteBulkState", (*Service).grpcDeleteBulkState),
			unary("ExecuteStateTransaction", (*Service).grpcTransactState),
			unary("PublishEvent", (*Service).grpcPublish),
			unary("BulkPublishEventAlpha1", (*Service).grpcBulkPublish),
			unary("GetSecret", (*Service).grpcGetSecret),
			unary("GetBulkSecret", (*Service).grpcGetBulkSecret),
			unary("TryLockAlpha1", (*Service).grpcTryLock),
			unary("UnlockAlpha1", (*Service).grpcUnlock),
			unary("GetMetadata", (*Service).grpcGetMetadata),
			unary("SetMetadata", (*Service).grpcSetMetadata),
			unary("Shutdown", (*Service).grpcShutdown),
		},
		Streams: []grpc.StreamDesc{{StreamName: "SubscribeTopicEventsAlpha1", Handler: streamTopicEvents, ServerStreams: true, ClientStreams: true}},
	}, s)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: grpc_health_v1.Health_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Check", Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			asked := new(grpc_health_v1.HealthCheckRequest)
			if err := decode(asked); err != nil {
				return nil, err
			}
			return srv.(*Service).checkHealth(ctx, asked)
		}}},
	}, s)
	return server
}

// checkHealth is the standard health check, which is asked for no token, as /v1.0/healthz.
func (s *Service) checkHealth(_ context.Context, asked *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if name := asked.GetService(); name != "" && name != daprService {
		return nil, status.Errorf(codes.NotFound, "there is no service %q here", name)
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

// unary describes a call.
func unary[Req any, Message interface {
	*Req
	proto.Message
}, Resp proto.Message](name string, serve func(*Service, context.Context, Message) (Resp, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (answer any, err error) {
		s := srv.(*Service)
		if err := s.admit(ctx); err != nil {
			return nil, err
		}
		asked := Message(new(Req))
		if err := decode(asked); err != nil {
			return nil, err
		}
		defer s.recovered(ctx, name, &err)
		answered, err := serve(s, ctx, asked)
		if err != nil {
			return nil, s.statusOf(ctx, name, err)
		}
		return answered, nil
	}}
}

// recovered makes a panic an error: the server of gRPC would end the node, that of HTTP ends the request.
func (s *Service) recovered(ctx context.Context, name string, err *error) {
	if caught := recover(); caught != nil {
		s.cfg.Logger.ErrorContext(ctx, "a call of the Dapr API panicked", "method", name, "panic", caught, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "the call failed in a way that nobody thought of: see the node's log")
	}
}

// admit asks for the token, where there is one.
func (s *Service) admit(ctx context.Context) error {
	if s.cfg.Token == "" {
		return nil
	}
	md, _ := grpcmeta.FromIncomingContext(ctx)
	if shown := md.Get(headerToken); len(shown) != 1 || subtle.ConstantTimeCompare([]byte(shown[0]), []byte(s.cfg.Token)) != 1 {
		return status.Error(codes.Unauthenticated, "invalid api token")
	}
	return nil
}

// statusOf is an error as Dapr's gRPC API tells of it: a code, and the reason in the details of those that have them there.
func (s *Service) statusOf(ctx context.Context, name string, err error) error {
	if _, is := status.FromError(err); is {
		return err
	}
	if why := ctx.Err(); why != nil {
		return status.FromContextError(why).Err()
	}
	var no *refusal
	if !errors.As(err, &no) {
		no = refuse(http.StatusInternalServerError, "ERR_INTERNAL", "%s", err)
	}
	if no.status >= http.StatusInternalServerError {
		s.cfg.Logger.WarnContext(ctx, "a call of the Dapr API failed", "method", name, "code", no.code, "error", err)
	}
	answer := status.New(no.grpcCode(), no.message)
	if reason := no.reason(); reason != "" {
		if detailed, err := answer.WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: errorDomain}); err == nil {
			answer = detailed
		}
	}
	return answer.Err()
}

// reason is what Dapr says in the details of the errors that it has details for.
func (r *refusal) reason() string {
	switch r.code {
	case "ERR_STATE_STORE_NOT_FOUND":
		return "DAPR_STATE_NOT_FOUND"
	case "ERR_STATE_STORE_NOT_CONFIGURED":
		return "DAPR_STATE_NOT_CONFIGURED"
	case "ERR_STATE_STORE_NOT_SUPPORTED", "ERR_STATE_QUERY":
		return "DAPR_STATE_QUERY_FAILED"
	case "ERR_PUBSUB_NOT_FOUND":
		return "DAPR_PUBSUB_NOT_FOUND"
	case "ERR_PUBSUB_NOT_CONFIGURED":
		return "DAPR_PUBSUB_NOT_CONFIGURED"
	}
	if r.illegalKey {
		return "DAPR_STATE_ILLEGAL_KEY"
	}
	return ""
}

// grpcCode is the code that Dapr's gRPC API has for the error.
func (r *refusal) grpcCode() codes.Code {
	switch r.code {
	case "ERR_STATE_STORE_NOT_CONFIGURED", "ERR_PUBSUB_NOT_CONFIGURED", "ERR_LOCK_STORE_NOT_CONFIGURED", "ERR_SECRET_STORES_NOT_CONFIGURED":
		return codes.FailedPrecondition
	case "ERR_PUBSUB_NOT_FOUND", "ERR_TOPIC_NAME_EMPTY", "ERR_SECRET_STORE_NOT_FOUND":
		return codes.InvalidArgument
	case "ERR_NOT_SUPPORTED_STATE_OPERATION":
		return codes.Unimplemented
	}
	switch r.status {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.Aborted
	case http.StatusRequestEntityTooLarge:
		return codes.ResourceExhausted
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Internal
}

// empty is the answer of a call that says nothing, unless it failed.
func empty(err error) (*emptypb.Empty, error) {
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// incoming is a value of the request's metadata.
func incoming(ctx context.Context, name string) string {
	md, _ := grpcmeta.FromIncomingContext(ctx)
	if values := md.Get(name); len(values) > 0 {
		return values[0]
	}
	return ""
}
