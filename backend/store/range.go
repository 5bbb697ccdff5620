package store

import "fmt"

// Range selects bytes of an object: the zero value is all of it; Len == 0 means from Off to the end; Off < 0 means the
// last -Off bytes, or the whole object if it is shorter.
type Range struct{ Off, Len int64 }

// Whole tells whether r is the whole object whatever its size.
func (r Range) Whole() bool { return r == Range{} }

// Resolve gives offset and length of r in an object of size bytes. Like S3 it refuses a range that selects nothing, so
// only Whole fits an empty object; unlike S3 it also refuses one that reaches beyond the end, because Get returns
// exactly the bytes asked for.
func (r Range) Resolve(size int64) (off, n int64, err error) {
	switch {
	case r.Whole():
		return 0, size, nil
	case r.Off < 0:
		off = max(0, size+r.Off)
		n = size - off
	case r.Len == 0:
		off, n = r.Off, size-r.Off
	default:
		off, n = r.Off, r.Len
	}
	if n <= 0 || n > size-off {
		return 0, 0, fmt.Errorf("%w: %s of %d bytes", ErrRange, r, size)
	}
	return off, n, nil
}

func (r Range) String() string {
	switch {
	case r.Whole():
		return "all"
	case r.Off < 0:
		return fmt.Sprintf("last %d bytes", -r.Off)
	case r.Len == 0:
		return fmt.Sprintf("bytes from %d", r.Off)
	}
	return fmt.Sprintf("bytes %d-%d", r.Off, r.Off+r.Len-1)
}
