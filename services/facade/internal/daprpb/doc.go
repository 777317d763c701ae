// Package daprpb has the messages of Dapr's gRPC API, generated from dapr.proto. The services stand where they are served.
package daprpb

//go:generate env GOWORK=off go -C ../../../../tools run ./protogen ../services/facade/internal/daprpb dapr.proto
