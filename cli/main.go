// Command glidefs-appliance gives this host virtual disks whose home is an object store.
//
// Each command is one file here. A command parses, talks to the daemon of its state dir over a socket (package
// appliance/client), and prints; what has to happen in the caller's mount namespace (file systems, loop devices) happens
// here too, through package appliance/mounts.
//
// Exit codes: 0 done, 1 error, 2 usage, 3 done but not all in the store, 4 refused: another owner.
package main

import "os"

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }
