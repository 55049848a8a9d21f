"""Synthetic forward flows of the goldens (numpy only)."""


def flow_field(kind, t, size=512):
    """Forward flow of frame t -> t+1 on a size x size grid: float32 [2, size, size], channel 0 = dx, 1 = dy (pixels).

    drift: one translation a frame. split: the left and the right half move apart (disocclusion, no conflict).
    clean: split at even t, drift at odd t: no two points ever reach the same cell. crowd: zoom + rotation +
    ripple: many points reach the same cell. fast: 180 px a frame, so that nothing stays for four frames.
    """
    import numpy as np

    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    drifts = [(12.0, -4.0), (-20.0, 9.0), (5.9, 28.0), (-36.0, -12.0), (44.5, 3.9), (0.0, -52.0), (-7.0, 20.0)]
    dx0, dy0 = drifts[t % len(drifts)]
    if kind == "clean":
        kind = "drift" if t % 2 else "split"
    if kind == "drift":
        fx, fy = np.full_like(x, dx0), np.full_like(x, dy0)
    elif kind == "split":
        fx, fy = np.where(x < size / 2, -16.0 - 8 * t, 24.0 + 4 * t), np.full_like(x, dy0)
    elif kind == "crowd":
        cx, cy = 256 + 40 * np.cos(t), 236 + 30 * np.sin(1.7 * t)
        a, z = 0.06 * (1 + t % 3), -0.10 + 0.07 * (t % 3)
        u, v = x - cx, y - cy
        fx = (np.cos(a) * (1 + z) - 1) * u - np.sin(a) * (1 + z) * v + 9 * np.sin(v / 37 + t)
        fy = np.sin(a) * (1 + z) * u + (np.cos(a) * (1 + z) - 1) * v + 9 * np.cos(u / 29 - t)
    elif kind == "fast":
        fx, fy = np.full_like(x, 180.0), np.full_like(x, -60.0)
    else:
        raise ValueError(kind)
    return np.stack([fx, fy]).astype(np.float32)
