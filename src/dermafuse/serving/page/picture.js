// The image with the heatmap over it.

/** Draw a heatmap (rows of 0..1) large and smooth: browsers differ in how they enlarge a canvas of 7x7. */
export function drawHeat(canvas, rows) {
  canvas.width = canvas.height = 224;
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(canvas.width, canvas.height);
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const heat = between(rows, (y + 0.5) / canvas.height, (x + 0.5) / canvas.width);
      picture.data.set([...inferno(heat), Math.round(255 * heat)], 4 * (y * canvas.width + x));
    }
  }
  pen.putImageData(picture, 0, 0);
}

// The heatmap at a place 0..1, 0..1, bilinear, pixel centres half-way.
function between(rows, down, across) {
  const [y, x] = [down * rows.length - 0.5, across * rows[0].length - 0.5];
  const clamp = (value, length) => Math.min(Math.max(value, 0), length - 1);
  const [top, left] = [Math.floor(y), Math.floor(x)];
  let total = 0;
  for (const [row, weight] of [[top, 1 - (y - top)], [top + 1, y - top]]) {
    for (const [column, share] of [[left, 1 - (x - left)], [left + 1, x - left]]) {
      total += weight * share * rows[clamp(row, rows.length)][clamp(column, rows[0].length)];
    }
  }
  return total;
}

// Anchors of the "inferno" colour scale (van der Walt & Smith, CC0), as in the picture that `explain` writes.
const ANCHORS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

function inferno(value) {
  const place = Math.min(Math.max(value, 0), 1) * (ANCHORS.length - 1);
  const low = Math.min(Math.floor(place), ANCHORS.length - 2);
  return ANCHORS[low].map((start, channel) => start + (place - low) * (ANCHORS[low + 1][channel] - start));
}
