// Package daprmesh calls apps through a sidecar of Dapr, over its HTTP API: POST /v1.0/invoke/{appId}/method/{method}. It is a mesh.Carrier, so that a
// client can call some targets through the sidecar and others natively.
//
// Dapr finds the instances and tries again. It has no registry that can be listed, no health of instances, and takes no connection over (WebSockets):
// those are the native mesh's.
package daprmesh
