package volume

// Quiet tells whether the store's manifest names all objects that this volume has written and may yet name, and by which
// incarnation (manifest.Manifest.Log) to know that manifest. A collector that waits less than manifest.Grace asks. It does
// not block: a volume that is about to update its manifest is not quiet.
func (v *Volume) Quiet() (log [16]byte, quiet bool) {
	if v.unnamed.Load() > 0 || v.compacting.Load() {
		return log, false
	}
	select { // after that: what they left unsettled is in the cell
	case v.manifest.turn <- struct{}{}:
		defer v.releaseManifest()
	default:
		return log, false
	}
	cell := v.manifest.cell
	if cell == nil || !cell.Settled() {
		return log, false
	}
	return cell.Current().Log, true
}
