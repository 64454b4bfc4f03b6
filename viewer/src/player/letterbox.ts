// Where the picture lies inside its element, and which guest pixel a point of it is.

export interface Size {
  width: number;
  height: number;
}

export interface Rectangle extends Size {
  left: number;
  top: number;
}

export interface Point {
  x: number;
  y: number;
}

/** The part of `element` that a picture fills under `object-fit: contain`. */
export function pictureRectangle(element: Rectangle, picture: Size): Rectangle | undefined {
  if (picture.width <= 0 || picture.height <= 0 || element.width <= 0 || element.height <= 0) {
    return undefined;
  }
  const scale = Math.min(element.width / picture.width, element.height / picture.height);
  const width = picture.width * scale;
  const height = picture.height * scale;
  return {
    left: element.left + (element.width - width) / 2,
    top: element.top + (element.height - height) / 2,
    width,
    height,
  };
}

/** The guest pixel under a client point. */
export interface GuestPoint extends Point {
  /** False where the point lies beside the picture; it was moved to the nearest pixel then. */
  inside: boolean;
}

export function toGuestPixel(client: Point, element: Rectangle, picture: Size): GuestPoint | undefined {
  const shown = pictureRectangle(element, picture);
  if (!shown) return undefined;
  const x = Math.floor(((client.x - shown.left) / shown.width) * picture.width);
  const y = Math.floor(((client.y - shown.top) / shown.height) * picture.height);
  const inside = x >= 0 && y >= 0 && x < picture.width && y < picture.height;
  return { x: clamp(x, picture.width), y: clamp(y, picture.height), inside };
}

function clamp(value: number, size: number): number {
  return Math.min(Math.max(value, 0), size - 1);
}
