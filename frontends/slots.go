package frontends

import "runtime"

// CPUs is how many this process may use: GOMAXPROCS as it was at the start, which heeds the CPU set and the quota.
var CPUs = runtime.GOMAXPROCS(0)

// SpareSlots makes n slots of the scheduler more than there are CPUs, for those who wait in the kernel. A slot stays with who
// does for tens of microseconds, while others that could run stand still.
func SpareSlots(n int) {
	if CPUs+n > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(CPUs + n)
	}
}
