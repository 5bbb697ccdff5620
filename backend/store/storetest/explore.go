package storetest

// Explore runs f once for each sequence of choices it can make: choose(n) returns 0..n-1, first always 0. It returns the number of runs.
func Explore(f func(choose func(n int) int)) (runs int) {
	type choice struct{ took, of int }
	var path []choice
	for {
		runs++
		at := 0
		f(func(n int) int {
			if at == len(path) {
				path = append(path, choice{0, n})
			}
			at++
			return path[at-1].took
		})
		for len(path) > 0 && path[len(path)-1].took == path[len(path)-1].of-1 {
			path = path[:len(path)-1]
		}
		if len(path) == 0 {
			return runs
		}
		path[len(path)-1].took++
	}
}
