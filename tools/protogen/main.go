// Command protogen writes the Go code of a .proto file beside it, without a protoc to install: the compiler is a Go package, and so is what
// protoc-gen-go is made of. It writes messages only; services are written by hand, where they are served.
//
//	protogen FOLDER FILE.proto
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: protogen FOLDER FILE.proto")
		os.Exit(2)
	}
	if err := generate(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func generate(ctx context.Context, folder, file string) error {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{folder}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(ctx, file)
	if err != nil {
		return err
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: []string{file}, Parameter: new("paths=source_relative")}
	request.ProtoFile = withImports(nil, map[string]bool{}, compiled[0])
	plugin, err := protogen.Options{}.New(request)
	if err != nil {
		return err
	}
	generated := internal_gengo.GenerateFile(plugin, plugin.FilesByPath[file])
	content, err := generated.Content()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, strings.TrimSuffix(file, ".proto")+".pb.go"), content, 0o644) //nolint:gosec // source code
}

// withImports lists a file after those that it imports.
func withImports(list []*descriptorpb.FileDescriptorProto, seen map[string]bool, file protoreflect.FileDescriptor) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return list
	}
	seen[file.Path()] = true
	for i := range file.Imports().Len() {
		list = withImports(list, seen, file.Imports().Get(i).FileDescriptor)
	}
	return append(list, protoutil.ProtoFromFileDescriptor(file))
}
