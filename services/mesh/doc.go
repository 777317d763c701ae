// Package mesh is the service that offers the mesh over HTTP: registration and discovery, mappings, the configuration,
// and the pass-through for programs that call by name from other languages.
//
// It also listens on the bus for programs that announce themselves only there, and finds the instances that have gone
// quiet. Any number of instances of this service may run at once: what they share is in the registry.
package mesh
